"""`timar demo`: runs the whole graph on a recorded conversation, with the simulated head; writes bag and report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from timar_ros.options import add_flags, flag_values

if TYPE_CHECKING:
    from rich.table import Table

    from timar_ros.graph.demo_results import Results
    from timar_ros.graph.description import GraphOptions
    from timar_ros.graph.observer import ObservedRun

SUMMARY = "run the whole ROS graph on the sample conversation (or your own) and write a bag and an HTML report"


OWN = ("recording", "user", "agent", "user_motion")
OPTIONS = (
    "speed", "model", "robot", "mode", "planning_lead", "hop", "hop_margin", "look_ahead", "seed", "device", "dtype",
    "namespace", "params_file",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    from timar_ros.graph.description import GraphOptions

    add_flags(parser.add_argument_group("your own recording"), GraphOptions, OWN)
    parser.add_argument(
        "--out", metavar="FOLDER", default="out/demo", help="folder for the bag, the motion and the report"
    )
    add_flags(parser, GraphOptions, OPTIONS, defaults={"device": "cpu"})
    parser.add_argument("--no-report", action="store_true", help="write no report.html")


def run(args: argparse.Namespace) -> int:
    """Run the graph; 0 without faults, 1 for a dead node, dropped turn or violated limit, 2 for bad input."""
    from timar_ros.errors import require

    require("rclpy", "see docs/installation.md", "timar demo")

    from timar_ros.graph.demo_results import prepare
    from timar_ros.graph.supervisor import NodeError
    from timar_ros.node_parts.playback import load_recording
    from timar_ros.retarget.profile import load_profile
    from timar_ros.ros.node_process import interruptible

    options = _options(args)
    load_profile(options.robot)
    out = Path(args.out)
    seconds = load_recording(options.recording, options.user, options.agent, options.user_motion).seconds
    prepare(out)
    try:
        with interruptible() as stop_requested:
            observed = _converse(options, out, seconds, stop_requested.is_set)
            if observed is None:
                print("timar demo: interrupted; all nodes have ended", file=sys.stderr)
                return 130
    except NodeError as error:
        print(f"timar demo: node {error}; the last lines of its log ({out}/logs) were", file=sys.stderr)
        print(*(f"  {line}" for line in error.tail), sep="\n", file=sys.stderr)
        return 2 if error.refused else 1
    return _conclude(args, out, seconds, observed)


def _options(args: argparse.Namespace) -> GraphOptions:
    from timar_ros.graph.description import GraphOptions
    from timar_ros.resources import share

    options = flag_values(args, GraphOptions)
    if not (args.recording or args.user or args.agent):
        sample = {"recording": "conversation.flac", "user_motion": "conversation_user.npz"}
        options |= {name: str(share("samples", file)) for name, file in sample.items()}
    out = Path(args.out)
    return GraphOptions(
        **options, source="recording", sim="builtin", audio_file=str(out / "agent.wav"), record=str(out / "bag")
    )


def _converse(options: GraphOptions, out: Path, seconds: float, stop: Callable[[], bool]) -> ObservedRun | None:
    """Run the graph to the end of the recording; None after a stop request."""
    from timar_ros.console import console, progress
    from timar_ros.graph.session import session

    with session(options, out / "logs") as graph:
        console.print(f"starting {len(graph.specs)} nodes on domain {os.environ['ROS_DOMAIN_ID']}")
        with progress() as bar:
            task = bar.add_task("starting", total=2 * len(graph.specs))
            up = graph.supervisor.bring_up(stop=stop, on_progress=lambda _name, _done: bar.advance(task))
        if not up:
            return None
        info = graph.observer.observed.info
        if info is not None and not info.trained:
            console.print(
                f"[bold red]UNTRAINED[/]: the model '{info.model}' has random weights, its motion means nothing"
            )
        with progress() as bar:
            task = bar.add_task("conversation [s]", total=round(seconds))
            done = graph.run(lambda: bar.update(task, completed=int(graph.observer.observed.audio_seconds)), stop)
        if not done:
            return None
        graph.supervisor.bring_down()
        graph.supervisor.end()
        graph.supervisor.check_end()
        return graph.observer.observed


def _conclude(args: argparse.Namespace, out: Path, seconds: float, observed: ObservedRun) -> int:
    """Write the results, print the summary; returns the exit code."""
    from timar_ros.console import console
    from timar_ros.graph.demo_results import conclude

    results = conclude(out, observed, seconds, args.robot)
    if not args.no_report:
        from timar_ros.evaluation.report.conversation_report import write_report

        write_report(out, out / "report.html")
    console.print(_summary(results))
    console.print(
        f"written to {out}: bag, motion.npz, joints.csv, agent.wav{'' if args.no_report else ', report.html'}"
    )
    if not args.no_report:
        console.print(f"report: {(out / 'report.html').resolve()}", soft_wrap=True)
    if results.faults:
        print(f"timar demo: {'; '.join(results.faults)}", file=sys.stderr)
        return 1
    return 0


def _summary(results: Results) -> Table:
    from timar_ros.console import table

    rows = [
        ("conversation", f"{results.seconds:.1f} s"),
        ("model", results.model + ("" if results.trained else " (UNTRAINED)")),
        ("turns", results.turns),
        ("turns dropped", results.dropped),
        *([("hops from a plan", results.from_plan)] if results.from_plan else []),
        ("samples lost", results.lost_samples),
        ("latency p50", f"{results.latency_p50 * 1e3:.1f} ms"),
        ("latency p95", f"{results.latency_p95 * 1e3:.1f} ms"),
        ("latency max", f"{results.latency_max * 1e3:.1f} ms"),
        ("real-time factor", f"{results.real_time_factor:.3f}"),
        ("joint-limit violations", results.limit_violations),
        ("… of the simulated joints", results.measured_violations),
    ]
    return table("timar demo", ("figure", "value"), rows)
