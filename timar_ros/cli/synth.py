"""`timar synth`: makes synthetic two-party conversations for training and tests."""

from __future__ import annotations

import argparse
import os
import time

SUMMARY = "make synthetic two-party conversations with motion, in DualTalk's layout (train, test, ood)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's arguments."""
    parser.add_argument("out", help="folder to write; an unfinished set with the same seed is continued")
    parser.add_argument(
        "--conversations",
        type=int,
        default=100,
        help="number of conversations: of ten, 8 are for train, 1 for test, 1 for ood",
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument(
        "--min-seconds", type=float, default=20.0, metavar="S", help="length of the shortest conversation [s]"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=60.0, metavar="S", help="length of the longest conversation [s]"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of processes")


def run(args: argparse.Namespace) -> int:
    """Make the set with a progress bar; print the number of conversations and the time."""
    from timar_ros.console import console, progress
    from timar_ros.synth.conversations import make_folder
    from timar_ros.synth.voices import require_engines

    require_engines()
    started = time.monotonic()
    with progress() as bar:
        task = bar.add_task("conversations", total=args.conversations)
        count = make_folder(
            args.out,
            args.conversations,
            args.seed,
            (args.min_seconds, args.max_seconds),
            args.jobs,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(
        f"{args.out}: {args.conversations} conversations, {count} made in {time.monotonic() - started:.0f} s",
        soft_wrap=True,
    )
    return 0
