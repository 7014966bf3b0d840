"""`timar up`: the graph of bringup.launch.py as child processes, where `launch` is not installed."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "start the conversational head's nodes and watch them, until Ctrl-C (what bringup.launch.py does)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each field of GraphOptions."""
    from dataclasses import fields

    from timar_ros.nodes.graph import GraphOptions

    for item in fields(GraphOptions):
        name, text = f"--{item.name.replace('_', '-')}", item.metadata["help"].replace("%", "%%")
        if isinstance(item.default, bool):
            parser.add_argument(name, action="store_true", help=text)
        else:
            kind, choices = type(item.default), item.metadata["choices"] or None
            parser.add_argument(name, type=kind, choices=choices, default=item.default, help=text)
    parser.add_argument("--logs", default="out/up", help="folder for the nodes' logs")


def run(args: argparse.Namespace) -> int:
    """Bring the graph up; 0 after Ctrl-C, 1 when a node died or could not start."""
    from dataclasses import fields
    from pathlib import Path

    from timar_ros.console import console
    from timar_ros.errors import require

    require("rclpy", "see docs/installation.md", "timar up")

    from timar_ros.nodes.graph import GraphOptions
    from timar_ros.nodes.session import session
    from timar_ros.nodes.supervisor import NodeError, interruptible

    options = GraphOptions(**{item.name: getattr(args, item.name) for item in fields(GraphOptions)})

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
