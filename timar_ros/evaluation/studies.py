"""Studies beyond the paper's tables: each varies one thing, with a row per value, and writes a table and a plot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np

from timar_ros.data.corrupted_copies import corrupt_folder
from timar_ros.data.disturbances import Corruption
from timar_ros.data.dualtalk_folder import DualTalkFolder
from timar_ros.errors import UserError
from timar_ros.evaluation.bench.paper_table import COLUMNS, Row, as_json
from timar_ros.evaluation.bench.predictions import chosen_clips, make_recipe, predict
from timar_ros.evaluation.bench.scoring import find_predictions, score_all
from timar_ros.evaluation.metrics.conversation_signals import voice_activity
from timar_ros.evaluation.metrics.paper_metrics import mean_metrics
from timar_ros.evaluation.reproduction import PAPER, Line, Parts, Report, histories, shown, timar_line, write
from timar_ros.streaming.sampling_options import PipelineOptions

PLOTTED = ("FD exp", "FD jaw 1e3", "FD pose 1e2", "MSE exp 1e1", "MSE jaw 1e3", "MSE pose 1e2")
SNR = (60.0, 20.0, 10.0, 0.0)
"""Signal-to-noise ratios of the study of noise [dB]; noise at 60 dB is inaudible."""
OVERLAP_GROUPS = 3
"""Number of equal groups of conversations in the study of overlap."""


@dataclass(frozen=True)
class Study:
    """A finished study: the varied quantity, and a line with its position on the axis for each value."""

    name: str
    axis: str
    points: Sequence[tuple[float, Line]]


def history(parts: Parts, report: Report) -> Study:
    """The effect of the number of past turns."""
    from timar_ros.streaming.offline import resolve_model

    turn = resolve_model(parts.model).config.turn_seconds
    last = max(histories(parts.model))
    points = [((past + 1) * turn, timar_line(parts, parts.splits[0], past, report)) for past in range(last + 1)]
    return Study("history", "window, current turn included [s]", points)


def noise(parts: Parts, report: Report) -> Study:
    """Bursts of noise in the model's audio."""
    split, past = parts.splits[0], max(histories(parts.model))
    points = []
    for ratio in SNR:
        copy = parts.out / "noisy" / f"{split}-{ratio:g}dB"
        _noisy_copy(parts.data, copy, split, ratio)
        line = timar_line(replace(parts, data=str(copy)), split, past, report)
        points.append((-ratio, _named(line, f"{ratio:g} dB")))
    return Study("noise", "bursts of noise, signal-to-noise ratio", points)


def overlap(parts: Parts, report: Report) -> Study:
    """Conversations grouped by the share of time in which both speak."""
    split, past = parts.splits[0], max(histories(parts.model))
    from timar_ros.streaming.offline import resolve_model

    turn = resolve_model(parts.model).config.turn_seconds
    recipe = make_recipe(
        parts.model, parts.data, split, device=parts.device, dtype=parts.dtype,
        **(PAPER | {"context_seconds": (past + 1) * turn, "seed": 0}),
    )  # fmt: skip
    folder = predict(
        recipe, parts.out / "predictions", parts.jobs, parts.limit, lambda d, n: report(f"{split}: overlap", d, n)
    )
    data = DualTalkFolder(parts.data, split, normalise=False)
    share = {}
    for clip in chosen_clips(recipe, parts.limit):
        item = data.load(clip)
        both = voice_activity(item["user_speech"]) & voice_activity(item["agent_speech"])
        share[f"{clip.pair.name}_speaker{clip.agent}"] = float(both.mean())
    tasks = [task for task in find_predictions(folder, data)[0] if task.name in share]
    scores = score_all(tasks, parts.jobs, lambda d, n: report(f"{split}: overlap, metrics", d, n))
    scores.sort(key=lambda score: share[score.name])
    points = []
    for group in np.array_split(np.arange(len(scores)), min(OVERLAP_GROUPS, len(scores))):
        members = [scores[index] for index in group]
        mean = float(np.mean([share[score.name] for score in members]))
        row = Row(f"{100 * mean:.0f} %", split, mean_metrics([score.metrics for score in members]), len(members))
        points.append((100 * mean, Line(row)))
    return Study("overlap", "both speak [% of the time]", points)


def latency(parts: Parts, report: Report) -> Study:
    """The three modes: how late the partner is heard, and the loss of quality."""
    from timar_ros.streaming.offline import resolve_model

    split, past = parts.splits[0], max(histories(parts.model))
    turn = resolve_model(parts.model).config.turn_seconds
    points = []
    kinds: tuple[tuple[str, dict[str, object]], ...] = (
        ("rolling", {"mode": "rolling", "noise_correlation": None, "head_crossover": None}),
        ("reactive", {"mode": "reactive"}),
        ("anticipatory", {"mode": "anticipatory"}),
    )
    for label, options in kinds:
        line = timar_line(parts, split, past, report, **options)
        mode = PipelineOptions(mode=label)  # type: ignore[arg-type]
        # Motion for t is shown at t + delay; in anticipatory mode the partner's part of the turn comes a turn late.
        late = mode.delay_ns(turn) * 1e-9 + (turn + mode.planning_lead if label == "anticipatory" else 0.0)
        points.append((late, _named(line, f"{label} ({late:.2f} s)")))
    return Study("latency", "a reaction to the partner is shown after [s]", points)


def models(name: str, parts: Parts, others: Sequence[str], report: Report) -> Study:
    """Models trained with another turn length or another speech encoder.

    :raises UserError: fewer than two models.
    """
    from timar_ros.streaming.offline import resolve_model

    if len(others) < 2:
        change = "model.turn_seconds=0.5" if name == "turn-length" else "speech.weights=DIR"
        raise UserError(
            f"--study {name} compares trained models: give two or more as --models, made by "
            f"'timar train config/train/timar_large.yaml --data DIR --folder F --set {change}' "
            "(the model lies in F/model)"
        )
    points = []
    for position, model in enumerate(others):
        config = resolve_model(model).config
        own = replace(parts, model=model)
        line = timar_line(own, parts.splits[0], max(histories(model)), report)
        path = Path(model)
        label = path.parent.name if path.name == "model" and path.parent.name else path.name
        if name == "turn-length":
            points.append((config.turn_seconds, _named(line, f"{label}, {config.turn_seconds:g} s")))
        else:
            points.append((float(position), _named(line, label)))
    return Study(name, "length of a turn [s]" if name == "turn-length" else "speech encoder", points)


STUDIES: dict[str, Callable[[Parts, Report], Study]] = {
    "history": history,
    "noise": noise,
    "overlap": overlap,
    "latency": latency,
}
OF_MODELS = ("turn-length", "encoder")
NAMES = (*STUDIES, *OF_MODELS)


def run_study(name: str, parts: Parts, others: Sequence[str], report: Report) -> Study:
    """Run a study and write ``studies/NAME.md``, ``.json`` and ``.svg``."""
    study = models(name, parts, others, report) if name in OF_MODELS else STUDIES[name](parts, report)
    base = parts.out / "studies" / name
    lines = [f"| {study.axis} | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += [f"| {line.row.label} | {' | '.join(shown(line, COLUMNS))} |" for _, line in study.points]
    write(base.with_suffix(".md"), "\n".join(lines) + "\n")
    found = as_json([line.row for _, line in study.points])
    for one, (position, _) in zip(found, study.points, strict=True):
        one["position"] = position
    write(base.with_suffix(".json"), json.dumps(found, indent=2) + "\n")
    write(base.with_suffix(".svg"), draw(study))
    return study


def draw(study: Study) -> str:
    """An SVG with a small plot for each of the main metrics."""
    width, height, gap = 280.0, 150.0, 60.0
    points = sorted(study.points, key=lambda point: point[0])
    positions = [position for position, _ in points]
    low, high = min(positions), max(positions)
    parts = []
    for index, column in enumerate(PLOTTED):
        metric, factor = COLUMNS[column]
        left, top = gap + (index % 3) * (width + gap), gap + (index // 3) * (height + gap + 20)
        values = [line.row.values.get(metric, np.nan) * factor for _, line in points]
        known = [value for value in values if np.isfinite(value)]
        if not known:
            continue
        bottom, ceiling = min(0.0, *known), max(known) * 1.1 or 1.0
        dots = []
        for position, value, (_, line) in zip(positions, values, points, strict=True):
            if not np.isfinite(value):
                continue
            x = left + width * (0.5 if high == low else (position - low) / (high - low))
            y = top + height * (1 - (value - bottom) / (ceiling - bottom))
            dots.append((x, y, line.row.label))
        parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#bbb"/>'
            f'<text x="{left}" y="{top - 8}" font-weight="bold">{escape(column)}</text>'
            f'<text x="{left - 6}" y="{top + 10}" text-anchor="end">{ceiling:.3g}</text>'
            f'<text x="{left - 6}" y="{top + height}" text-anchor="end">{bottom:.3g}</text>'
            f'<polyline fill="none" stroke="#0072b2" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in dots)}"/>'
        )
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#0072b2"/>'
            f'<text x="{x:.1f}" y="{top + height + 14}" text-anchor="middle" font-size="9">{escape(label)}</text>'
            for x, y, label in dots
        ]
    total, tall = gap + 3 * (width + gap), 2 * (height + gap + 20) + gap
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total:.0f}" height="{tall:.0f}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{gap}" y="24" font-size="15">{escape(study.name)}: {escape(study.axis)}</text>'
        f"{''.join(parts)}</svg>\n"
    )


def _named(line: Line, label: str) -> Line:
    return Line(replace(line.row, label=label), line.spread)


def _noisy_copy(data: str, copy: Path, split: str, ratio: float) -> None:
    """Make a copy of a split with bursts of noise, unless it exists; an incomplete copy is made again."""
    done = copy / "done"
    if done.exists():
        return
    if copy.exists():
        shutil.rmtree(copy)
    copy.parent.mkdir(parents=True, exist_ok=True)
    corrupt_folder(data, copy, [Corruption.parse(f"noise={ratio:g}")], 0, [split])
    done.touch()
