"""`timar record`: records a running graph into a bag until Ctrl-C."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timar_ros.bags.bag_recorder import RecordingSummary

SUMMARY = "record all topics of the running graph into a bag (MCAP), until Ctrl-C"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    from timar_ros.graph.description import NOT_RECORDED

    parser.add_argument("out", metavar="OUT", help="folder of the bag; it must not exist yet")
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", default=[], help="record only these (default: all)")
    parser.add_argument("--exclude", nargs="*", metavar="TOPIC", default=list(NOT_RECORDED), help="topics to leave out")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="kind of bag")
    parser.add_argument("--compress", action="store_true", help="compress with zstd")
    parser.add_argument(
        "--cache", type=int, default=100, metavar="MB", help="memory for messages that wait for the disk"
    )
    parser.add_argument("--qos", metavar="YAML", default="", help="YAML file of QoS by topic, as for `ros2 bag`")
    parser.add_argument("--namespace", default="", help="namespace of the graph's relative topics")
    parser.add_argument("--duration", type=float, metavar="S", help="length of the recording (default: until Ctrl-C)")
    parser.add_argument("--use-sim-time", action="store_true", help="use the time of /clock")


def run(args: argparse.Namespace) -> int:
    """Run the recorder node in this process until Ctrl-C; then print recorded and lost messages."""
    from timar_ros.errors import require

    require("rclpy", "see docs/installation.md", "timar record")

    import time

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.logging import LoggingSeverity
    from rclpy.parameter import Parameter
    from rclpy.signals import SignalHandlerOptions

    from timar_ros.console import console, table
    from timar_ros.errors import UserError
    from timar_ros.nodes.recorder import Recorder, describe
    from timar_ros.ros.node_process import interruptible

    with interruptible() as stop:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            values = {
                "path": args.out,
                "storage": args.storage,
                "compress": args.compress,
                "cache_megabytes": args.cache,
                "topics": args.topics or [""],
                "exclude": args.exclude or [""],
                "qos_profiles": args.qos,
                "use_sim_time": args.use_sim_time,
            }
            # Not `recorder`: a launch with its own recorder would send both nodes its transitions.
            node = Recorder(
                "timar_record",
                namespace=args.namespace,
                parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
            )
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            try:
                # The exception below reports faults once.
                node.get_logger().set_level(LoggingSeverity.FATAL)
                node.trigger_configure()
                if node.fault is None:
                    node.trigger_activate()
                if node.fault is not None:
                    raise UserError(node.fault)
                node.get_logger().set_level(LoggingSeverity.INFO)
                console.print(f"recording into {args.out}; Ctrl-C ends it")
                ends = time.monotonic() + args.duration if args.duration is not None else float("inf")
                while not stop.is_set() and time.monotonic() < ends:
                    executor.spin_once(timeout_sec=0.1)
                node.end()
                if node.fault is not None:
                    raise UserError(node.fault)
            finally:
                executor.shutdown()
                node.destroy_node()
        finally:
            rclpy.try_shutdown()
    assert node.summary is not None
    summary = node.summary
    rows = [(topic, count, _lost(summary, topic)) for topic, count in sorted(summary.messages.items())]
    console.print(table("recorded", ("topic", "messages", "lost"), rows))
    for line in describe(summary):
        console.print(line)
    return 0


def _lost(summary: RecordingSummary, topic: str) -> str:
    """A topic's losses, in words."""
    kinds = (("samples", summary.lost_samples), ("turns", summary.lost_turns), ("messages", summary.lost_messages))
    return ", ".join(f"{by_topic[topic]} {unit}" for unit, by_topic in kinds if topic in by_topic)
