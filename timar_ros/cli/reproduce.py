"""`timar reproduce`: computes the paper's tables, ablations and further studies from the downloaded parts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timar_ros.evaluation.reproduction import Line, Parts

SUMMARY = "compute the paper's tables 1 and 2, its ablations and further studies from the downloaded parts"

STUDIES = ("history", "turn-length", "noise", "overlap", "encoder", "latency")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parts = parser.add_argument_group("the parts (docs/reproduce.md says where to get them)")
    parts.add_argument("--data", metavar="DIR", required=True, help="DualTalk's data: train/, test/, ood/")
    parts.add_argument(
        "--checkpoint",
        metavar="F",
        required=True,
        help="the authors' .pth, or a model's folder or name",
    )
    parts.add_argument("--speech", metavar="DIR", help="wav2vec 2.0 of the checkpoint's training")
    what = parser.add_argument_group("what to compute (default: tables 1 and 2)")
    what.add_argument("--split", default="test,ood", help="test: table 1, ood: table 2; several with commas")
    what.add_argument("--seeds", type=int, default=1, metavar="N", help="noise samples; with 2 or more, rows have a ±")
    what.add_argument(
        "--ablations", action="store_true", help="also train the three ablations (days on GPUs) and score them"
    )
    what.add_argument("--train-config", metavar="YAML", help="recipe of the ablations (default: timar_large.yaml)")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of that recipe",
    )
    what.add_argument("--study", nargs="+", choices=STUDIES, default=[], help="studies, each a table and a plot")
    what.add_argument("--models", nargs="+", default=[], metavar="M", help="models for turn-length and encoder")
    work = parser.add_argument_group("work and output")
    work.add_argument("--out", default="runs/reproduction", help="folder of the results; existing ones are used again")
    work.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    work.add_argument("--dtype", default="float32", help="float32, bfloat16, float16 or auto")
    work.add_argument("--jobs", type=int, default=1, help="number of processes")
    work.add_argument("--limit", type=int, help="largest number of conversations and roles, evenly chosen")


def run(args: argparse.Namespace) -> int:
    """Check the parts, compute what is missing, print and write the tables."""
    from timar_ros.console import console, progress, staged, table
    from timar_ros.errors import UserError, require

    require("torch", "pip install 'torch>=2.4'", "timar reproduce")
    from timar_ros.evaluation.bench.paper_table import COLUMNS
    from timar_ros.evaluation.reproduction import (
        Parts,
        ablation_lines,
        ablation_table,
        check_data,
        ready_model,
        shown,
        tables,
        write,
    )
    from timar_ros.evaluation.studies import run_study

    splits = [part.strip() for part in args.split.split(",") if part.strip()]
    if not splits:
        raise UserError("--split is empty: give test, ood or both with a comma")
    if args.seeds < 1 or args.jobs < 1 or (args.limit is not None and args.limit < 1):
        raise UserError("--seeds, --jobs and --limit must be 1 or more")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    check_data(args.data, splits)
    model = ready_model(args.checkpoint, args.speech, out)
    parts = Parts(args.data, model, out, splits, args.seeds, args.device, args.dtype, args.jobs, args.limit)
    trained = _train_ablations(args, parts) if args.ablations else {}

    with progress() as bar:
        report = staged(bar)
        lines = [] if args.study and not args.ablations else tables(parts, report)
        ablations = ablation_lines(parts, trained, report)
        studies = [run_study(name, parts, args.models, report) for name in args.study]
    columns = list(COLUMNS.items())
    for split in dict.fromkeys(line.row.split for line in lines):
        for first in range(0, len(columns), 5):
            part = dict(columns[first : first + 5])
            rows = [[line.row.label, *shown(line, part)] for line in lines if line.row.split == split]
            console.print(table(f"{split} (lower is better, but for SID)", ["model", *part], rows))
    if lines:
        text = ablation_table(_longest(lines), ablations)
        write(out / "ablations.md", text)
        console.print(f"written: {out / 'tables.md'}, {out / 'tables.json'}, {out / 'ablations.md'}", soft_wrap=True)
    for study in studies:
        part = dict(columns[:6])
        rows = [[line.row.label, *shown(line, part)] for _, line in study.points]
        console.print(table(f"{study.name}, {splits[0]}", [study.axis, *part], rows))
        console.print(f"written: {out / 'studies' / study.name}.md, .json, .svg", soft_wrap=True)
    return 0


def _longest(lines: list[Line]) -> Line | None:
    """The model with the longest history on test."""
    own = [line for line in lines if line.row.split == "test" and not line.row.published and " n=" in line.row.label]
    return own[-1] if own else None


def _train_ablations(args: argparse.Namespace, parts: Parts) -> dict[str, str]:
    """Train untrained ablations, each from its last checkpoint; returns name -> the model's folder."""
    from timar_ros.cli.main import main
    from timar_ros.errors import UserError
    from timar_ros.evaluation.reproduction import ABLATIONS
    from timar_ros.resources import share

    config = args.train_config or str(share("config", "train", "timar_large.yaml"))
    found = {}
    for name, (change, _) in ABLATIONS.items():
        short = name.lower().replace(" ", "-")
        folder = parts.out / "ablations" / short
        done = folder / "trained"
        if not done.exists():
            sets = [*args.set, change, f"name={short}"]
            if args.speech:
                sets.append(f"speech.weights={args.speech}")
            command = ["train", config, "--data", args.data, "--folder", str(folder)]
            command += [part for each in sets for part in ("--set", each)]
            if any(folder.glob("checkpoint*")) or any(folder.glob("checkpoints/*")):
                command.append("--resume")
            if main(command):
                raise UserError(f"training of the ablation '{name}' failed; the same command resumes it")
            done.touch()
        found[name] = str(folder / "model")
    return found
