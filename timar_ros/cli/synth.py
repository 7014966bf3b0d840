"""`timar synth`: make synthetic two-party conversations to train and test on."""

from __future__ import annotations

import argparse
import os
import time

SUMMARY = "make synthetic two-party conversations with motion, in DualTalk's layout (train, test, ood)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command's arguments."""
    parser.add_argument("out", help="folder to write; an unfinished set with the same seed is continued")
    parser.add_argument("--conversations", type=int, default=100, help="how many: 8 of 10 train, 1 test, 1 ood")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--min-seconds", type=float, default=20.0, help="shortest conversation")
    parser.add_argument("--max-seconds", type=float, default=60.0, help="longest conversation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")


def run(args: argparse.Namespace) -> int:
    """Make the set with a progress bar; say what is there and how fast it went."""
    from timar_ros.console import console, progress
    from timar_ros.data.synth import make_folder
    from timar_ros.data.synth_voices import require_engines

    require_engines()
    begin = time.monotonic()
    with progress() as bar:
        task = bar.add_task("conversations", total=args.conversations)
        made = make_folder(
            args.out,
            args.conversations,
            args.seed,
            (args.min_seconds, args.max_seconds),
            args.jobs,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(
        f"{args.out}: {args.conversations} conversations, {made} made in {time.monotonic() - begin:.0f} s",
        soft_wrap=True,
    )
    return 0
