"""`timar status`: shows the state of a running graph in one table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from timar_ros.options import add_flags

if TYPE_CHECKING:
    from rich.table import Table

    from timar_ros.graph.status import GraphStatus

SUMMARY = "look at a running graph: its nodes, what they complain of, and the conversation's figures"

OPTIONS = ("namespace", "only", "without")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    from timar_ros.graph.description import GraphOptions

    add_flags(parser, GraphOptions, OPTIONS)
    parser.add_argument(
        "--domain", type=int, metavar="N",
        help="DDS domain (default: ROS_DOMAIN_ID, else that of the graph which `timar` runs on this machine, else 0)",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=float, default=10.0, metavar="S", help="wait so long [s] for what is missing"
    )
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--watch", action="store_true", help="look again and again until Ctrl-C")
    parser.epilog = "Exit code: 0 every node is active and OK, 1 a node warns, fails or is missing, 2 bad arguments."


def run(args: argparse.Namespace) -> int:
    """Print the state; 0 without faults, 1 when a node warns, fails or is missing, 2 for invalid arguments."""
    import json
    import math
    import os

    from timar_ros.errors import UserError, require

    require("rclpy", "see docs/installation.md", "timar status")
    if not (math.isfinite(args.patience) and 0.0 < args.patience <= 3600.0):
        raise UserError(f"--patience {args.patience:g}: must be more than 0 s and at most 3600 s")
    if args.as_json and args.watch:
        raise UserError("--json and --watch exclude each other")
    expected = _expected(args)

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from timar_ros.console import console
    from timar_ros.graph.domain import choose_domain
    from timar_ros.graph.status import GraphWatcher
    from timar_ros.ros.node_process import interruptible

    os.environ["ROS_DOMAIN_ID"] = str(choose_domain(args.domain))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("status", namespace=args.namespace)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        with interruptible() as stop_requested:
            watcher = GraphWatcher(node, executor, args.namespace, expected)
            status = watcher.look(args.patience, stop_requested.is_set)
            while args.watch and not stop_requested.is_set():
                console.clear()
                console.print(_table(status))
                status = watcher.look(args.patience, stop_requested.is_set)
            if stop_requested.is_set() and not args.watch:
                raise KeyboardInterrupt
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    if args.as_json:
        print(json.dumps(status.as_dict(), indent=2))
    elif not args.watch:
        console.print(_table(status))
    if status.elsewhere and not args.as_json:
        console.print(f"nodes run in {', '.join(status.elsewhere)}: name it with --namespace", soft_wrap=True)
    return 0 if status.fine else 1


def _expected(args: argparse.Namespace) -> list[str]:
    from timar_ros.errors import UserError
    from timar_ros.graph.description import GraphOptions, describe

    known = [spec.name for spec in describe(GraphOptions())]
    only, without = ({name.strip() for name in text.split(",")} - {""} for text in (args.only, args.without))
    # Only some graphs have this node: the user can expect it, but need not exclude it.
    from timar_ros.graph.parameter_reference import NODES

    if unknown := (only | without) - set(NODES):
        raise UserError(f"no node {', '.join(sorted(unknown))}: there are {', '.join(NODES)}")
    wanted = [name for name in NODES if (name in only if only else name in known) and name not in without]
    if not wanted:
        raise UserError("--only and --without leave no node to look for")
    return wanted


def _table(status: GraphStatus) -> Table:
    from rich.markup import escape

    from timar_ros.console import table

    rows: list[tuple[str, ...]] = [
        (node.name, node.state, node.level, escape(node.message), escape(node.advice)) for node in status.nodes
    ]
    status_table = table(f"timar status {status.namespace}", ("node", "state", "level", "says", "what to do"), rows)
    for column in status_table.columns[1:]:
        column.justify = "left"
    status_table.add_section()
    talk = status.conversation
    if talk is None:
        status_table.add_row("conversation", "", "", "no stream_info", "bring timar_inference up")
        return status_table
    trained = "trained" if talk.trained else "UNTRAINED"
    status_table.add_row("conversation", talk.mode, "", escape(f"model {talk.model} ({trained})"), "")
    counts = ["unknown" if number is None else str(number) for number in (talk.turns_answered, talk.turns_dropped)]
    figures = f"playback_delay {talk.playback_delay:.2f} s; turns answered {counts[0]}, dropped {counts[1]}"
    status_table.add_row("", "", "", figures, "")
    return status_table
