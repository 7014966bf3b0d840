"""`timar study`: creates a page for a blind comparison of heads by people, or analyses their ratings."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "make a page on which people compare heads blind, or analyse their ratings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `timar study`."""
    parser.add_argument(
        "systems", nargs="*", metavar="SYSTEM", help="models by folder or name, and the baselines procedural, wobbler"
    )
    parser.add_argument(
        "--out", default="study.html", metavar="HTML", help="page to write; its key is in the same folder"
    )
    parser.add_argument(
        "--clip", nargs="+", metavar="DIR/X", help="conversations X_speaker1|2.wav (default: the sample)"
    )
    parser.add_argument("--recordings", nargs="+", metavar="FILE", help="people talking, one a file")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a trial, 2 to 60 [s]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the motion and of the order in the file")
    parser.add_argument("--analyse", nargs="+", metavar="JSON", help="saved ratings")
    parser.add_argument("--key", metavar="JSON", help="with --analyse: the page's key")


def run(args: argparse.Namespace) -> int:
    """Write the page, or print the analysis of the ratings."""
    from timar_ros.errors import UserError

    if args.analyse:
        if not args.key or args.systems:
            raise UserError("--analyse JSON... needs --key KEY and no systems")
        return _analyse(args)
    if not 2 <= args.seconds <= 60:
        raise UserError(f"--seconds {args.seconds:g}: must be from 2 to 60")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be 0 or more")
    from timar_ros.console import console
    from timar_ros.data.audio_files import load_conversation
    from timar_ros.evaluation.judge import Maker, Model, baselines, real_talks
    from timar_ros.evaluation.metrics.believable import Talk
    from timar_ros.evaluation.study.study_page import write_study
    from timar_ros.resources import share
    from timar_ros.streaming.sampling_options import PipelineOptions

    ruled = {maker.label: maker for maker in baselines()}
    makers: list[Maker] = []
    for name in args.systems:
        if name in ruled:
            makers.append(ruled[name])
            continue
        from timar_ros.streaming.offline import resolve_model

        makers.append(Model(name, resolve_model(name, threads=1), PipelineOptions()))
    if args.clip or args.recordings:
        talks = real_talks(args.clip or [], args.recordings or [])
    else:
        first, second, _ = load_conversation(share("samples", "conversation.flac"))
        talks = [Talk("sample_2", first, second), Talk("sample_1", second, first)]
    out = Path(args.out)
    key = write_study(makers, talks, out, args.seconds, args.seed)
    console.print(
        f"{out} ({out.stat().st_size / 1e6:.1f} MB): give it to people; keep {key} for --analyse", soft_wrap=True
    )
    return 0


def _analyse(args: argparse.Namespace) -> int:
    from timar_ros.console import console, table
    from timar_ros.evaluation.study.study_analysis import Estimate, analyse

    found = analyse([Path(file) for file in args.analyse], Path(args.key))

    def shown(each: Estimate) -> list[str]:
        return [f"{each.mean:.2f}", f"{each.low:.2f} … {each.high:.2f}"]

    console.print(f"{found.people} people; {found.inattentive} more missed the attention check")
    for question, systems in found.systems.items():
        rows = [[name, *shown(each)] for name, each in systems.items()]
        rows += [[f"{one} - {two}", *shown(each)] for (one, two), each in found.pairs[question].items()]
        console.print(table(question, ["", "mean", "95 %"], rows))
    return 0
