"""`timar evaluate --data`: makes missing predictions, scores, adds the published lines and writes the tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.data.dualtalk_folder import DualTalkFolder
from timar_ros.distributed import process_count, process_index, without_gpu
from timar_ros.errors import UserError
from timar_ros.evaluation.bench.paper_table import Row, as_json, markdown, published
from timar_ros.evaluation.bench.predictions import NAIVE, Recipe, chosen_clips, make_recipe, predict
from timar_ros.evaluation.bench.scoring import find_predictions, score_all
from timar_ros.evaluation.metrics.behaviour import mean_behaviour, measure
from timar_ros.evaluation.metrics.paper_metrics import mean_metrics
from timar_ros.files import atomic_path
from timar_ros.options import flag_values, options_of
from timar_ros.streaming.sampling_options import PipelineOptions

Report = Callable[[str, int, int], None]

LONGEST = timedelta(days=3)


@dataclass(frozen=True)
class Work:
    """One row to compute: from a recipe, or from ready predictions without one."""

    split: str
    label: str
    recipe: Recipe | None


def plan(args: argparse.Namespace) -> list[Work]:
    """The rows that the command line requests, all checked before any work starts.

    :raises UserError: bad options, data or models.
    """
    work = []
    for split in _listed(args.split, "--split"):
        DualTalkFolder(args.data, split)
        if args.prediction:
            find_predictions(args.prediction, DualTalkFolder(args.data, split))
            work.append(Work(split, Path(args.prediction).name, None))
        else:
            work += [Work(split, label, recipe) for label, recipe in recipes(args, split)]
    return work


def evaluate(args: argparse.Namespace, work: list[Work], report: Report) -> list[Row]:
    """All rows, a split's published ones first; also writes the files.

    With several processes (torchrun, accelerate launch) each predicts its share, and the first one does the rest: the
    others return no rows.

    :param report: called with (stage, done, total).
    """
    if process_count() > 1:
        for one in work:
            if one.recipe is not None:
                _predict(args, one.recipe, one.label, report)
        _wait_for_all()
        if process_index():
            return []
    rows: list[Row] = []
    for one in work:
        if all(row.split != one.split for row in rows):
            rows += published(one.split)
        rows.append(
            _ready(args, one.split, report) if one.recipe is None else model_row(args, one.recipe, one.label, report)
        )
    if args.json:
        _write(Path(args.json), json.dumps(as_json(rows), indent=2) + "\n")
    if args.markdown:
        _write(Path(args.markdown), markdown(rows))
    return rows


def recipes(args: argparse.Namespace, split: str) -> list[tuple[str, Recipe]]:
    """The recipes for a split, with labels; only TIMAR has history lengths."""
    labelled = []
    for model in args.model:
        path = Path(model)
        # The name of a run's folder says more than that of the `model` in it.
        name = path.parent.name if path.name == "model" and path.parent.name else path.name
        if model in NAIVE:
            labelled.append((name, make_recipe(model, args.data, split, seed=args.seed)))
            continue
        for seconds in _listed(args.context_seconds, "--context-seconds"):
            try:
                options = flag_values(args, PipelineOptions) | {"context_seconds": float(seconds)}
            except ValueError as error:
                raise UserError(
                    f"--context-seconds {args.context_seconds}: seconds with commas, such as 1,2,4,8"
                ) from error
            recipe = make_recipe(model, args.data, split, device=args.device, dtype=args.dtype, **_named(options))
            if not recipe.options:
                labelled.append((name, recipe))
                break
            history = round(recipe.options["context_seconds"] / _turn_seconds(model)) - 1
            labelled.append((f"{name} n={history}", recipe))
    return labelled


def _named(options: dict[str, Any]) -> dict[str, Any]:
    """Options without None, and without newer ones at their default, so that predictions outlive new options."""
    default = {name: item.default for name, item in options_of(PipelineOptions).items()}
    return {
        name: value
        for name, value in options.items()
        if value is not None and (name not in ("engine", "planning_lead") or value != default[name])
    }


def _turn_seconds(model: str) -> float:
    try:
        described = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        return float(described["model"]["turn_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0


def _predict(args: argparse.Namespace, recipe: Recipe, label: str, report: Report) -> Path:
    return predict(
        recipe, args.out, args.jobs, args.limit, lambda done, all_: report(f"{recipe.split}: {label}", done, all_)
    )


def model_row(args: argparse.Namespace, recipe: Recipe, label: str, report: Report) -> Row:
    """Make missing predictions and score them; both are stored in ``args.out`` and reused."""
    folder = _predict(args, recipe, label, report)
    count = len(chosen_clips(recipe, args.limit))
    kept = folder / f"scores-{count}.json"
    if kept.exists():
        metrics = json.loads(kept.read_text(encoding="utf-8"))
    else:
        wanted = {f"{clip.pair.name}_speaker{clip.agent}" for clip in chosen_clips(recipe, args.limit)}
        tasks, _ = find_predictions(folder, DualTalkFolder(args.data, recipe.split))
        stage = f"{recipe.split}: {label}, metrics"
        scores = score_all(
            [t for t in tasks if t.name in wanted], args.jobs, lambda done, all_: report(stage, done, all_)
        )
        metrics = mean_metrics([score.metrics for score in scores]) | _behaviour(args, recipe, folder)
        _write(kept, json.dumps(metrics, indent=2) + "\n")
    return Row(label, recipe.split, metrics, count, note={"model": recipe.model, "options": recipe.options})


def _behaviour(args: argparse.Namespace, recipe: Recipe, folder: Path) -> dict[str, float]:
    """Means of the metrics of :mod:`timar_ros.evaluation.metrics.behaviour`."""
    data = DualTalkFolder(args.data, recipe.split, normalise=False)
    measured = []
    for clip in chosen_clips(recipe, args.limit):
        item = data.load(clip)
        prediction = np.load(folder / f"{clip.pair.name}_speaker{clip.agent}.npy", allow_pickle=False)
        measured.append(measure(prediction, item["agent_motion"], item["user_speech"], item["agent_speech"]))
    return mean_behaviour(measured)


def _ready(args: argparse.Namespace, split: str, report: Report) -> Row:
    tasks, strangers = find_predictions(args.prediction, DualTalkFolder(args.data, split))
    scores = score_all(tasks, args.jobs, lambda done, all_: report(f"{split}: metrics", done, all_))
    note: dict[str, object] = {"passed_over": strangers} if strangers else {}
    return Row(Path(args.prediction).name, split, mean_metrics([s.metrics for s in scores]), len(scores), note=note)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _listed(text: str, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UserError(f"{option} is empty")
    return parts


def _wait_for_all() -> None:
    """Wait until every process has made its share of predictions, which may take hours longer than this one's."""
    from accelerate import PartialState

    state = PartialState(cpu=without_gpu(), timeout=LONGEST)
    state.wait_for_everyone()
    state.destroy_process_group()
