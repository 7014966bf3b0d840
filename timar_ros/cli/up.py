"""`timar up`: the graph of bringup.launch.py as child processes, where `launch` is not installed."""

from __future__ import annotations

import argparse
import sys

from timar_ros.options import add_flags, given

SUMMARY = "start the conversational head's nodes and watch them, until Ctrl-C (what bringup.launch.py does)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each field of GraphOptions."""
    from timar_ros.nodes.graph import GraphOptions

    add_flags(parser, GraphOptions)
    parser.add_argument("--logs", default="out/up", help="folder for the nodes' logs")


def run(args: argparse.Namespace) -> int:
    """Bring the graph up; 0 after Ctrl-C, 1 when a node died or could not start."""
    from pathlib import Path

    from timar_ros.console import console
    from timar_ros.errors import require

    require("rclpy", "see docs/installation.md", "timar up")

    from timar_ros.nodes.graph import GraphOptions
    from timar_ros.nodes.process import interruptible
    from timar_ros.nodes.session import session
    from timar_ros.nodes.supervisor import NodeError

    options = GraphOptions(**given(args, GraphOptions))

    def echo(name: str, line: str) -> None:
        print(f"{name}: {line}", flush=True)

    try:
        with interruptible() as asked, session(options, Path(args.logs), echo, listening=False) as graph:
            graph.supervisor.bring_up(on_progress=lambda name, done: echo(name, f"{done}d"), stop=asked.is_set)
            console.print(f"{len(graph.specs)} nodes are up; Ctrl-C ends them")
            while not asked.is_set():
                graph.supervisor.spin(0.2)
            console.print("ending the nodes")
    except NodeError as error:
        print(f"timar up: node {error}; its last lines were", *error.tail, sep="\n  ", file=sys.stderr)
        return 2 if error.refused else 1
    return 0
