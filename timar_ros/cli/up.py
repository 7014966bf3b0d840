"""`timar up`: runs the graph of bringup.launch.py as child processes, without `launch`."""

from __future__ import annotations

import argparse
import sys

from timar_ros.options import add_flags, flag_values

SUMMARY = "start the live graph and watch it until Ctrl-C, as bringup.launch.py does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each field of GraphOptions."""
    from timar_ros.graph.description import GraphOptions

    add_flags(parser, GraphOptions)
    parser.add_argument("--logs", default="out/up", help="folder for the nodes' logs")


def run(args: argparse.Namespace) -> int:
    """Start the graph; 0 after Ctrl-C, 1 when a node died or could not start."""
    import os
    from pathlib import Path

    from timar_ros.console import console
    from timar_ros.errors import require

    require("rclpy", "see docs/installation.md", "timar up")

    from timar_ros.graph.description import GraphOptions
    from timar_ros.graph.session import session
    from timar_ros.graph.supervisor import NodeError
    from timar_ros.ros.node_process import interruptible

    options = GraphOptions(**flag_values(args, GraphOptions))

    def echo(name: str, line: str) -> None:
        print(f"{name}: {line}", flush=True)

    try:
        with interruptible() as stop_requested, session(options, Path(args.logs), echo, listening=False) as graph:
            graph.supervisor.bring_up(on_progress=lambda name, done: echo(name, f"{done}d"), stop=stop_requested.is_set)
            console.print(f"{len(graph.specs)} nodes are up in domain {os.environ['ROS_DOMAIN_ID']}; Ctrl-C ends them")
            graph.watch(stop_requested.is_set, lambda line: console.print(line, markup=False, soft_wrap=True))
            console.print("ending the nodes")
    except NodeError as error:
        print(f"timar up: node {error}; its last lines were", *error.tail, sep="\n  ", file=sys.stderr)
        return 2 if error.refused else 1
    return 0
