"""`timar live`: runs the graph with a page in the browser that shows and controls the head."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from timar_ros.options import add_flags, flag_values

if TYPE_CHECKING:
    from timar_ros.graph.description import GraphOptions

SUMMARY = "show the head live in the browser: the sample conversation, your recording, or your own voice"

OPTIONS = (
    "recording", "user", "agent", "user_motion", "source", "microphone", "tracker", "camera", "image_topic", "speaker",
    "vmc", "model", "mode", "robot", "urdf", "sim", "command_topic", "seed", "device", "dtype", "hop", "hop_margin",
    "look_ahead", "planning_lead", "namespace", "channel", "only", "without", "params_file", "respawn", "state_file",
)  # fmt: skip

ADDRESS = re.compile(r"page: (http://127\.0\.0\.1:\d+/\?token=[\w-]+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    from timar_ros.graph.description import GraphOptions

    add_flags(parser, GraphOptions, OPTIONS, defaults={"source": None, "sim": None, "mode": "rolling", "device": "cpu"})
    parser.add_argument("--port", type=int, default=0, help="port of the page on 127.0.0.1 (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the page's address and open nothing")
    parser.add_argument("--once", action="store_true", help="play a recording only once")
    parser.add_argument("--out", default="out/live", metavar="FOLDER", help="folder for logs and recordings")


def run(args: argparse.Namespace) -> int:
    """Start the graph and the page; 0 after Ctrl-C, 1 when a node died, 2 for bad input."""
    from pathlib import Path

    from timar_ros.console import console
    from timar_ros.errors import UserError, require

    require("rclpy", "see docs/installation.md", "timar live")
    require("websockets", "pip install 'timar_ros[live]'", "timar live")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: must be from 0 to 65535")

    import webbrowser

    from timar_ros.graph.session import session
    from timar_ros.graph.supervisor import NodeError
    from timar_ros.ros.node_process import interruptible

    options = chosen_options(args)
    address: list[str] = []

    def look(name: str, line: str) -> None:
        if name == "live_page" and (match := ADDRESS.search(line)):
            address.append(match[1])

    page = {"port": args.port, "recordings": args.out, "repeat": not args.once}
    try:
        logs = Path(args.out) / "logs"
        with interruptible() as stop_requested, session(options, logs, look, listening=False, page=page) as graph:
            console.print(f"starting {len(graph.specs)} nodes (logs in {logs})")
            if graph.supervisor.bring_up(stop=stop_requested.is_set):
                while not address and not stop_requested.is_set():
                    graph.supervisor.spin(0.05)
            if address:
                console.print(f"the head is live at {address[0]}", soft_wrap=True)
                console.print("Ctrl-C ends it")
                if not args.no_browser and not webbrowser.open(address[0]):
                    console.print("no browser found: open the address yourself")
            graph.watch(stop_requested.is_set, lambda line: console.print(line, markup=False, soft_wrap=True))
            console.print("ending the nodes")
    except NodeError as error:
        print(f"timar live: node {error}; its last lines were", *error.tail, sep="\n  ", file=sys.stderr)
        return 2 if error.refused else 1
    return 0


def chosen_options(args: argparse.Namespace) -> GraphOptions:
    """The graph options from the flags.

    Default source: the recording from the flags, else the sample. Default `sim`: the built-in simulator, unless
    commands go to a robot's controller.
    """
    from timar_ros.graph.description import GraphOptions
    from timar_ros.resources import share

    options: dict[str, Any] = flag_values(args, GraphOptions)
    if options["source"] is None:
        options["source"] = "recording"
        if not (args.recording or args.user or args.agent):
            sample = {"recording": "conversation.flac"}
            if args.tracker in (None, "none"):  # else the partner is seen, not read from a file
                sample["user_motion"] = "conversation_user.npz"
            options |= {name: str(share("samples", file)) for name, file in sample.items()}
    if options["sim"] is None:
        options["sim"] = "none" if options["command_topic"] else "builtin"
    return GraphOptions(**options, page=True)
