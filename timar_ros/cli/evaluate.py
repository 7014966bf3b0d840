"""`timar evaluate`: scores a model or existing predictions against a data set, or a robot's motion in a bag."""

from __future__ import annotations

import argparse

from timar_ros.options import add_flags, options_of
from timar_ros.streaming.sampling_options import PipelineOptions

SUMMARY = "score a model, existing predictions or a recorded robot, with the paper's published numbers"

OPTIONS = [name for name in options_of(PipelineOptions) if name not in ("context_seconds", "playback_delay")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `timar evaluate`."""
    what = parser.add_argument_group("what to score, against a data set")
    what.add_argument(
        "--model",
        nargs="+",
        metavar="M",
        help="folders or names of models (TIMAR or DualTalk), or the baselines mean-pose and random-clip",
    )
    what.add_argument(
        "--prediction",
        metavar="DIR",
        help="score existing predictions X_speaker1|2.npy [T, 56], .npz or .pt; also those of ARTalk and UniLS",
    )
    what.add_argument("--data", metavar="DIR", help="data set in DualTalk's layout (timar synth makes one)")
    what.add_argument("--split", default="test", help="test, ood or another folder of the data; several with commas")
    how = parser.add_argument_group("how to run the model")
    # As in the paper: whole recordings are known, turns have no seams, and windows of 1 to 8 turns are compared.
    paper = {"normalising": "clip", "seams": False}
    how.add_argument(
        "--context-seconds",
        default="1,2,4,8",
        metavar="S",
        help="window of the network, with the current turn [s]; several with commas",
    )
    add_flags(how, PipelineOptions, OPTIONS, defaults=paper)
    how.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:N or auto (under a launcher: a GPU for each process)"
    )
    how.add_argument("--dtype", default="float32", help="float32, bfloat16, float16 or auto")
    alive = parser.add_argument_group("whether the motion looks alive, compared with rule-based heads")
    alive.add_argument(
        "--believable", action="store_true", help="score lips, nods and liveliness, each against its bar"
    )
    alive.add_argument("--clip", nargs="+", metavar="DIR/X", help="real conversations X_speaker1|2.wav (and .npz)")
    alive.add_argument("--recordings", nargs="+", metavar="FILE", help="real people talking, one a file")
    alive.add_argument("--seeds", type=int, default=2, help="with --believable: runs of each conversation, 2 or more")
    out = parser.add_argument_group("work and output")
    out.add_argument(
        "--out",
        default="runs/evaluation",
        help="folder of predictions and scores; existing ones are not computed again",
    )
    out.add_argument("--limit", type=int, help="largest number of conversations and roles to score, evenly chosen")
    out.add_argument("--jobs", type=int, default=1, help="number of processes")
    out.add_argument("--json", metavar="FILE", help="write every metric")
    out.add_argument("--markdown", metavar="FILE", help="write the table")
    _add_bag_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Dispatch to bags, predictions or models."""
    if any(getattr(args, name, None) for name in ("bag", "compare", "robustness")):
        from timar_ros.evaluation.bag_evaluation import run_bag

        return int(run_bag(args))
    if args.believable:
        return _believable(args)
    from timar_ros.console import console, progress, staged, table
    from timar_ros.distributed import process_index
    from timar_ros.errors import UserError, require
    from timar_ros.evaluation.bench.paper_table import COLUMNS, REVERSED, cells
    from timar_ros.evaluation.data_evaluation import evaluate, plan
    from timar_ros.evaluation.metrics.behaviour import BEHAVIOUR

    if not args.data or bool(args.model) == bool(args.prediction):
        raise UserError("name what to score: --data DIR with --model M, --data DIR with --prediction DIR, or --bag BAG")
    if args.model:
        require("torch", "pip install 'torch>=2.4'", "timar evaluate")
    work = plan(args)
    with progress() as bar:
        rows = evaluate(args, work, (lambda *_: None) if process_index() else staged(bar))
    # Six columns at a time fit a terminal.
    columns = list((COLUMNS | REVERSED).items())
    for split in dict.fromkeys(row.split for row in rows):
        for first in range(0, len(columns), 6):
            part = dict(columns[first : first + 6])
            shown = [[row.label, *cells(row, part)] for row in rows if row.split == split]
            console.print(table(f"{split} (lower is better, but for SID)", ["model", *part], shown))
        shown = [[row.label, *cells(row, BEHAVIOUR)] for row in rows if row.split == split and not row.published]
        console.print(table(f"{split}, behaviour (*: the truth's)", ["model", *BEHAVIOUR], shown))
    return 0


def _believable(args: argparse.Namespace) -> int:
    from timar_ros.console import console, progress, staged, table
    from timar_ros.errors import UserError, require
    from timar_ros.evaluation.judge import lines, run_judge

    if args.model:
        require("torch", "pip install 'torch>=2.4'", "timar evaluate")
    if args.seeds < 2:
        raise UserError(f"--seeds {args.seeds}: must be 2 or more, to measure the effect of chance")
    with progress() as bar:
        found = run_judge(args, staged(bar))
    for title, columns in found.items():
        # Names of folders are too long for a terminal's columns.
        letters = [chr(ord("A") + index) for index in range(len(columns))]
        console.print(table(f"{title} (*: misses the bar)", ["", "bar", *letters], lines(columns)))
        console.print("\n".join(f"{letter}: {label}" for letter, label in zip(letters, columns, strict=True)))
    return 0


def _add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    from timar_ros.evaluation.bag_evaluation import add_bag_arguments

    add_bag_arguments(parser)
