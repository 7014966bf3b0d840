"""`timar evaluate` on bags: metrics of a run, comparison of two runs, robustness."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timar_ros.errors import UserError

if TYPE_CHECKING:
    from timar_ros.evaluation.bench.robustness import Row
    from timar_ros.evaluation.metrics.bag_metrics import Result
    from timar_ros.evaluation.metrics.run_comparison import Difference


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a bag instead of a data set."""
    bags = parser.add_argument_group("a recorded run (bag)")
    bags.add_argument("--bag", metavar="BAG", help="metrics of a recorded run: latency, losses, lips, limits, manners")
    bags.add_argument("--truth", metavar="NPZ_OR_TOPIC", help="the agent's true motion: a file, or a topic of the bag")
    bags.add_argument("--robot", metavar="NAME_OR_YAML", help="the robot that was recorded (default: by its joints)")
    bags.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two runs of one conversation: B against A")
    bags.add_argument("--robustness", metavar="BAG_OR_DATA", help="how much a disturbed input changes a model's motion")
    bags.add_argument("--plot", metavar="HTML", help="with --robustness: a page with the table and its plots")


def run_bag(args: argparse.Namespace) -> int:
    """Evaluate as the arguments say; print tables, and write JSON if ``--json`` names a file."""
    chosen = [name for name in ("bag", "compare", "robustness") if getattr(args, name, None)]
    if len(chosen) > 1:
        raise UserError(f"--{chosen[0]} and --{chosen[1]}: give one of them")
    return {"bag": _run_one, "compare": _run_compare, "robustness": _run_robustness}[chosen[0]](args)


def _run_one(args: argparse.Namespace) -> int:
    from timar_ros.bags.recording import load_recording
    from timar_ros.bags.truth import read_truth
    from timar_ros.console import console
    from timar_ros.evaluation.metrics import bag_metrics
    from timar_ros.retarget.profile import load_profile

    recording = load_recording(args.bag)
    truth = read_truth(args.truth, recording) if args.truth else None
    profile = load_profile(args.robot) if args.robot else bag_metrics.find_profile(recording)
    result = bag_metrics.measure(recording, profile, truth)
    for warning in recording.warnings:
        console.print(warning)
    if not args.robot and (unclear := bag_metrics.ambiguity(recording)):
        console.print(unclear)
    for table in tables(result):
        console.print(table)
    _write(args, {"bag": str(args.bag), "robot": profile.name if profile else None, **bag_metrics.as_json(result)})
    return 0


def tables(result: Result) -> list[Any]:
    """One table per group."""
    from timar_ros.console import table
    from timar_ros.evaluation.metrics import bag_metrics

    return [
        table(title, ("", "value"), bag_metrics.rows(result, group))
        for group, title in bag_metrics.GROUP_TITLES.items()
        if group in result
    ]


def _run_compare(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from timar_ros.bags.recording import load_recording
    from timar_ros.bags.truth import read_truth
    from timar_ros.console import console, table
    from timar_ros.evaluation.metrics.run_comparison import compare

    a, b = (load_recording(path) for path in args.compare)
    truth = read_truth(args.truth, a) if args.truth else None
    found = compare(a, b, truth, seed=getattr(args, "seed", 0) or 0)
    title = f"{b.name} against {a.name}: mean over {max(one.turns for one in found)} turns, 95 % by paired bootstrap"
    columns = ("", a.name if a.name != b.name else "A", b.name if a.name != b.name else "B", "difference", "95 %", "")
    console.print(table(title, columns, [_difference(one) for one in found]))
    _write(args, {"a": str(args.compare[0]), "b": str(args.compare[1]), "metrics": [asdict(one) for one in found]})
    return 0


def _difference(one: Difference) -> tuple[str, ...]:
    from timar_ros.evaluation.metrics.run_comparison import TURN_METRICS

    label, unit, scale = TURN_METRICS[one.key]
    numbers = [f"{value * scale:.3g}" for value in (one.a, one.b)]
    interval = f"{one.low * scale:+.3g} … {one.high * scale:+.3g}"
    mark = "differs" if one.certain else ""
    return (f"{label} {unit}".strip(), *numbers, f"{one.difference * scale:+.3g}", interval, mark)


def _run_robustness(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from timar_ros.console import console, progress, table
    from timar_ros.evaluation.bench.robustness import COLUMNS, LABELS, measure_robustness
    from timar_ros.streaming.offline import resolve_model
    from timar_ros.streaming.sampling_options import PipelineOptions

    names = getattr(args, "model", None) or [None]
    if len(names) > 1:
        raise UserError(f"--robustness takes one --model at a time, not {len(names)}")
    model = resolve_model(names[0], device=getattr(args, "device", None) or "cpu")
    options = PipelineOptions(seed=getattr(args, "seed", 0) or 0)
    with progress() as bar:
        task = bar.add_task("runs", total=None)
        rows = measure_robustness(
            model,
            options,
            args.robustness,
            split=getattr(args, "split", None),
            limit=getattr(args, "limit", None) or 4,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    shown = [key for key in COLUMNS if any(key in row.values for row in rows)]
    title = f"{model.name}{'' if model.trained else ' (UNTRAINED)'} on {args.robustness}"
    console.print(table(title, ("disturbance", *(LABELS[key] for key in shown)), [_severity(r, shown) for r in rows]))
    if args.plot:
        from timar_ros.evaluation.report.report_robustness import write_robustness_page

        console.print(str(write_robustness_page(rows, args.plot, title)), soft_wrap=True)
    _write(args, {"source": str(args.robustness), "model": model.name, "rows": [asdict(row) for row in rows]})
    return 0


def _severity(row: Row, shown: list[str]) -> tuple[str, ...]:
    from timar_ros.evaluation.bench.robustness import DISTURBANCES

    name = row.disturbance
    if row.severity is not None:
        name = f"{DISTURBANCES[name][0]}: {row.severity:g}"
    return (name, *(f"{row.values.get(key, float('nan')):.3f}" for key in shown))


def _write(args: argparse.Namespace, content: dict[str, Any]) -> None:
    """Write ``--json``, NaN as null."""
    import json
    import math

    from timar_ros.files import atomic_path

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(entry) for entry in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    if getattr(args, "json", None):
        with atomic_path(Path(args.json)) as path:
            path.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
