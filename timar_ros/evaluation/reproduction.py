"""The paper's tables from its public parts: data, checkpoint, speech encoder. Every finished part is kept.

Table 1 is the test split, table 2 the ood split (arXiv 2512.15340). The ablations need their own models, which ``timar
reproduce --ablations`` trains.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.data.data_check import check_folder
from timar_ros.errors import UserError
from timar_ros.evaluation.bench.paper_table import COLUMNS, Row, as_json, cells, markdown, published
from timar_ros.evaluation.bench.predictions import NAIVE, Recipe, make_recipe
from timar_ros.evaluation.data_evaluation import model_row
from timar_ros.files import atomic_path

Report = Callable[[str, int, int], None]

PAPER: dict[str, Any] = {"normalising": "clip", "seams": False, "noise_correlation": 0.0, "head_crossover": 0.0}
"""Options of the paper's evaluation: level of the whole file, turns not joined, white noise, the head as sampled."""

HISTORIES = (0, 1, 3, 7)
"""Past turns in the window; the paper prints 0, 3 and 7."""

ABLATIONS: dict[str, tuple[str, float]] = {
    "MLP head": ("model.diffusion=false", 9.48),
    "bidirectional": ("model.causal=false", 9.12),
    "encoder-decoder": ("model.encoder_only=false", 9.51),
}
"""Name -> (change of the training configuration, published FD of the expression on test with 7 past turns)."""
FULL_MODEL = 8.97
"""Published FD of the expression on test with 7 past turns, for the unchanged model."""


@dataclass(frozen=True)
class Parts:
    """The downloaded parts, and how to compute."""

    data: str
    model: str
    out: Path
    splits: Sequence[str] = ("test", "ood")
    seeds: int = 1
    """Draws of the sampling noise; from 2 on the tables have a standard deviation."""
    device: str = "cpu"
    dtype: str = "float32"
    jobs: int = 1
    limit: int | None = None

    def row(self, recipe: Recipe, label: str, report: Report) -> Row:
        """Predict and score with one recipe; stored in ``out/predictions``."""
        work = argparse.Namespace(
            data=recipe.data, out=str(self.out / "predictions"), jobs=self.jobs, limit=self.limit, model=[recipe.model]
        )
        return model_row(work, recipe, label, report)


@dataclass(frozen=True)
class Line:
    """A row with its spread: metrics by name, mean and standard deviation over seeds (NaN for one seed)."""

    row: Row
    spread: dict[str, float] = field(default_factory=dict)


def check_data(data: str, splits: Sequence[str]) -> None:
    """Check for broken conversations before hours of work.

    :raises UserError: a split is missing or has a fault.
    """
    for split in splits:
        if not (Path(data) / split).is_dir():
            raise UserError(f"{data}: no folder {split}/ in it; --data is DualTalk's folder with train, test and ood")
    report = check_folder(data, list(splits))
    if report.faults:
        raise UserError(f"{data}: {len(report.faults)} fault(s), the first: {report.faults[0]}; see timar data check")


def ready_model(checkpoint: str, speech: str | None, out: Path) -> str:
    """The model as a folder: ``checkpoint`` itself, or ``out/model``, written once from the authors' ``.pth``.

    :param speech: folder or hub name of the speech encoder, for a checkpoint without one.
    :raises UserError: there is no such checkpoint, or it does not fit.
    """
    from timar_ros.model import load_timar, save_timar
    from timar_ros.streaming.offline import shipped_models

    path = Path(checkpoint)
    if checkpoint in shipped_models() or (path / "config.json").is_file():
        return checkpoint
    if not path.exists():
        raise UserError(f"--checkpoint {checkpoint}: no such file; docs/reproduce.md says where to get it")
    folder, source = out / "model", out / "model-source.json"
    stat = path.stat()
    made_from = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns, speech])
    if not (folder / "config.json").is_file() or not source.is_file() or source.read_text() != made_from:
        save_timar(load_timar(path, speech=speech), folder)
        with atomic_path(source) as temporary:
            temporary.write_text(made_from, encoding="utf-8")
    return str(folder)


def histories(model: str) -> list[int]:
    """Those of :data:`HISTORIES` that fit into the model's window."""
    from timar_ros.streaming.offline import resolve_model

    turns = resolve_model(model).config.context_turns
    return [history for history in HISTORIES if history < turns]


def timar_line(parts: Parts, split: str, history: int, report: Report, **options: Any) -> Line:
    """The model with a number of past turns, over all seeds."""
    from timar_ros.streaming.offline import resolve_model

    turn = resolve_model(parts.model).config.turn_seconds
    label = f"{Path(parts.model).name} n={history}"
    rows = []
    for seed in range(parts.seeds):
        sampling = PAPER | {"context_seconds": (history + 1) * turn, "seed": seed} | options
        recipe = make_recipe(parts.model, parts.data, split, device=parts.device, dtype=parts.dtype, **sampling)
        rows.append(parts.row(recipe, f"{label}, seed {seed}" if parts.seeds > 1 else label, report))
    return mean_line(label, split, rows)


def mean_line(label: str, split: str, rows: Sequence[Row]) -> Line:
    """Mean and standard deviation (of a sample) over rows."""
    names = dict.fromkeys(name for row in rows for name in row.values)
    values = {name: [row.values.get(name, math.nan) for row in rows] for name in names}
    mean = {name: float(np.mean(found)) for name, found in values.items()}
    spread = {name: float(np.std(found, ddof=1)) for name, found in values.items()} if len(rows) > 1 else {}
    return Line(Row(label, split, mean, rows[0].clips), spread)


def tables(parts: Parts, report: Report) -> list[Line]:
    """Tables 1 and 2: the published lines, the naive baselines, the model with each history."""
    lines = []
    for split in parts.splits:
        lines += [Line(row) for row in published(split)]
        if (Path(parts.data) / "train").is_dir():
            for name in NAIVE:
                lines.append(Line(parts.row(make_recipe(name, parts.data, split), name, report)))
        lines += [timar_line(parts, split, history, report) for history in histories(parts.model)]
    write_tables(parts.out, lines)
    return lines


def ablation_lines(parts: Parts, models: dict[str, str], report: Report) -> list[Line]:
    """The trained ablations on test with the longest history; a model by the name of its ablation."""
    lines = []
    for name, model in models.items():
        own = Parts(**{**vars(parts), "model": model})
        line = timar_line(own, "test", histories(model)[-1], report)
        lines.append(Line(Row(name, "test", line.row.values, line.row.clips), line.spread))
    return lines


def ablation_table(full: Line | None, ablations: Sequence[Line]) -> str:
    """FD of the expression of each ablation next to the published value, as Markdown."""
    lines = ["| model | published FD exp | FD exp here |", "|---|---:|---:|"]
    of_name = {line.row.label: line for line in ablations}
    for name, figure in [("TIMAR", FULL_MODEL), *((name, figure) for name, (_, figure) in ABLATIONS.items())]:
        line = full if name == "TIMAR" else of_name.get(name)
        lines.append(f"| {name} | {figure:.2f} | {_cell(line, 'fid_exp', 1.0) if line else 'not trained'} |")
    return "\n".join(lines) + "\n"


def comparison(lines: Sequence[Line]) -> str:
    """Published and measured figures side by side with their difference in percent, as Markdown."""
    parts = []
    for split in dict.fromkeys(line.row.split for line in lines):
        of_split = [line for line in lines if line.row.split == split]
        theirs = {line.row.label: line.row for line in of_split if line.row.published}
        own = [(line.row.label.rpartition(" n=")[2], line) for line in of_split if not line.row.published]
        pairs = [(n, theirs[name], line) for n, line in own if (name := f"TIMAR n={n} (published)") in theirs]
        if not pairs:
            continue
        text = [f"### {split}: published and here", "", "| metric | n | published | here | difference |"]
        text.append("|---|---:|---:|---:|---:|")
        for column, (metric, factor) in COLUMNS.items():
            for history, theirs_row, line in pairs:
                was = theirs_row.values[metric] * factor
                now = line.row.values.get(metric, math.nan) * factor
                difference = f"{100 * (now / was - 1):+.1f} %"
                text.append(f"| {column} | {history} | {was:.2f} | {_cell(line, metric, factor)} | {difference} |")
        parts.append("\n".join(text))
    return "\n\n".join(parts) + "\n"


def write_tables(out: Path, lines: Sequence[Line]) -> None:
    """``tables.md`` (all rows, then the comparison) and ``tables.json``."""
    rows = [line.row for line in lines]
    described = as_json(rows)
    for one, line in zip(described, lines, strict=True):
        if line.spread:
            one["deviation"] = line.spread
    write(out / "tables.md", markdown(rows) + "\n" + comparison(lines))
    write(out / "tables.json", json.dumps(described, indent=2) + "\n")


def shown(line: Line, columns: dict[str, tuple[str, float]]) -> list[str]:
    """A line's cells, with ± for several seeds."""
    if not line.spread:
        return cells(line.row, columns)
    return [_cell(line, metric, factor) for metric, factor in columns.values()]


def write(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _cell(line: Line, metric: str, factor: float) -> str:
    value = line.row.values.get(metric, math.nan) * factor
    if math.isnan(value):
        return ""
    return f"{value:.2f} ± {line.spread[metric] * factor:.2f}" if metric in line.spread else f"{value:.2f}"
