"""The actions of `timar data` that concern DualTalk folders: check, stats, corrupt."""

from __future__ import annotations

import argparse


def add_check(parser: argparse.ArgumentParser) -> None:
    """Arguments of `timar data check`."""
    parser.add_argument("folder", help="data set with train/, test/, ood/, or a folder of X_speaker1/2 .wav/.npz")
    parser.add_argument("--split", action="append", help="only this split (may be given again)")


def run_check(args: argparse.Namespace) -> int:
    """List the faults, then a summary; 1 when there is any fault."""
    from timar_ros.console import console, progress, table
    from timar_ros.data.data_check import check_folder

    with progress() as bar:
        task = bar.add_task("conversations", total=None)
        report = check_folder(
            args.folder, args.split, lambda done, total: bar.update(task, completed=done, total=total)
        )
    for fault in report.faults:
        console.print(str(fault), markup=False, soft_wrap=True)
    rows = []
    for split, count in report.conversations.items():
        broken = report.broken(split)
        faults = sum(f.split == split for f in report.faults)
        rows.append((split or "(files)", count, f"{report.seconds[split] / 3600:.2f}", faults, len(broken)))
    console.print(table(str(args.folder), ("split", "whole pairs", "hours", "faults", "broken"), rows))
    return 1 if report.faults else 0


def add_stats(parser: argparse.ArgumentParser) -> None:
    """Arguments of `timar data stats`."""
    parser.add_argument("folder", help="data set with train/, test/, ood/, or a folder of X_speaker1/2 .wav/.npz")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--limit", type=int, default=200, help="at most so many people a split")
    parser.add_argument("--json", help="write all figures here")


def run_stats(args: argparse.Namespace) -> int:
    """Print mean and spread over people of the figures that calibrate synthetic motion; partners may lack motion."""
    import json
    from pathlib import Path

    from timar_ros.console import console, progress, table
    from timar_ros.data.dualtalk_folder import SPLITS, Pair, load_speech, load_truth
    from timar_ros.data.motion_statistics import describe, summarise
    from timar_ros.errors import UserError
    from timar_ros.files import atomic_path

    root = Path(args.folder)
    present = [s for s in SPLITS if (root / s).is_dir()]
    splits = [args.split] if args.split else present or [""]
    found = {}
    for split in splits:
        files = sorted((root / split).glob("*_speaker[12].npz"))[: args.limit]
        if not files:
            raise UserError(f"{root / split}: no X_speaker1/2.npz")
        people = []
        with progress() as bar:
            for file in bar.track(files, description=split or "files"):
                name, _, speaker = file.stem.rpartition("_speaker")
                pair, own = Pair(file.parent, name), int(speaker)
                motion = load_truth(file)
                speech = load_speech(pair.wav(own), 0, len(motion), normalise=False)
                partner = pair.wav(3 - own)
                heard = load_speech(partner, 0, len(motion), normalise=False) if partner.is_file() else None
                people.append(describe(motion, speech, heard))
        found[split or "files"] = summarise(people)
    for name, rows in found.items():
        cells = [(key, *(f"{value:.3f}" for value in row.values())) for key, row in rows.items()]
        console.print(table(f"{root} {name}", ("figure", "mean", "5 %", "median", "95 %"), cells))
    if args.json:
        with atomic_path(args.json) as path:
            path.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def add_corrupt(parser: argparse.ArgumentParser) -> None:
    """Arguments of `timar data corrupt`."""
    from timar_ros.data.disturbances import KINDS

    kinds = "; ".join(f"{kind}={default:g}: {meaning}" for kind, (meaning, default) in KINDS.items())
    parser.add_argument("folder", help="data set with test/, ood/ or train/")
    parser.add_argument("out", help="folder to write; must be new or empty")
    parser.add_argument("kind", nargs="+", help=f"KIND or KIND=STRENGTH, one after the other on the same copy. {kinds}")
    parser.add_argument("--split", action="append", help="only this split (may be given again)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same copy")


def run_corrupt(args: argparse.Namespace) -> int:
    """Write the copy."""
    from timar_ros.console import console, progress
    from timar_ros.data.corrupted_copies import corrupt_folder
    from timar_ros.data.disturbances import Corruption

    chosen = [Corruption.parse(text) for text in args.kind]
    with progress() as bar:
        task = bar.add_task("conversations", total=None)
        count = corrupt_folder(
            args.folder,
            args.out,
            chosen,
            args.seed,
            args.split,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    what = ", ".join(map(str, chosen))
    console.print(f"{args.out}: {count} conversations with {what}; speaker 1 is the user in each", soft_wrap=True)
    return 0
