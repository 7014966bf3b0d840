"""`timar bench`: latency and throughput of the streaming engine, checked against the oracle in the same run."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timar_ros.errors import UserError
from timar_ros.options import add_flags
from timar_ros.streaming.sampling_options import PipelineOptions

if TYPE_CHECKING:
    from timar_ros.evaluation.bench.benchmark import BenchmarkRow
    from timar_ros.evaluation.bench.hop_benchmark import HopRow

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
SUMMARY = "measure the engine's speed and memory, and compare it with the plain computation (oracle)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    sizes, dtypes = ["mini", "base", "large", "huge"], ["float32", "bfloat16", "float16", "int8", "auto"]
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="the model (default: timar-mini, which live uses)")
    parser.add_argument(
        "--size", nargs="+", choices=sizes, help="measure random weights of such a size instead of a model"
    )
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=dtypes, help="number type; one row each")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    parser.add_argument(
        "--mode", default="reactive", choices=["reactive", "rolling"], help="time turns, or the hops of rolling mode"
    )
    add_flags(parser, PipelineOptions, ["hop", "context_policy"], several=["context_policy"])
    parser.add_argument(
        "--conversations",
        nargs="+",
        type=int,
        default=[1],
        help="conversations computed together; one row for each number",
    )
    parser.add_argument("--turns", type=int, default=12, help="turns (rolling: hops) to time, 12 or more")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="JSON file to write the rows to, too")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 when an fp32 engine does not equal the oracle."""
    from timar_ros.errors import require

    require("torch", "pip install 'torch>=2.4'", "timar bench")
    import torch

    from timar_ros.console import console, progress
    from timar_ros.evaluation.bench.benchmark import MINIMUM_TURNS, BenchmarkRow, benchmark, machine
    from timar_ros.evaluation.bench.hop_benchmark import HopRow, benchmark_hops, hops_in_all
    from timar_ros.model.precision import pick_device
    from timar_ros.streaming.offline import DEFAULT_MODEL, resolve_model

    if args.threads is not None:
        if args.threads < 1:
            raise UserError(f"--threads {args.threads}: must be at least 1")
        torch.set_num_threads(args.threads)
    if min(args.conversations) < 1:
        raise UserError(f"--conversations {min(args.conversations)}: must be at least 1")
    if args.turns < MINIMUM_TURNS:
        raise UserError(f"--turns {args.turns}: percentiles need at least {MINIMUM_TURNS}")
    if args.size and args.model:
        raise UserError("--size is for random weights: give --size or --model, not both")
    device = pick_device(args.device)
    rows: list[BenchmarkRow | HopRow] = []
    policies = [PipelineOptions(mode=args.mode, context_policy=each).window_policy for each in args.context_policy]
    names = [f"random-{size}" for size in args.size or ()] or [args.model or DEFAULT_MODEL]
    for name in names:
        oracle = resolve_model(name, threads=args.threads, inference=False).to(device, torch.float32).eval()
        size = Path(name).name.removeprefix("random-")
        for dtype, policy, count in itertools.product(args.dtype, policies, args.conversations):
            with progress() as bar:
                task = bar.add_task(f"{size} {dtype} {policy} x{count}", total=None)
                advance = functools.partial(bar.advance, task)
                if args.mode == "rolling":
                    bar.update(task, total=hops_in_all(oracle, args.turns, args.hop))
                    rows.append(benchmark_hops(oracle, size, dtype, policy, count, args.turns, args.hop, advance))
                else:
                    bar.update(task, total=oracle.config.context_turns + args.turns)
                    rows.append(benchmark(oracle, size, dtype, policy, count, args.turns, advance))
            if args.json is not None:  # after every row, so that an interrupted run keeps its finished rows
                _write(args.json, rows, machine(oracle.device))
    where = machine(oracle.device)
    console.print(f"{where}; window of 8 turns; {'random weights and' if args.size else 'random'} input")
    turns = [row for row in rows if isinstance(row, BenchmarkRow)]
    for report_table in _tables(turns) if turns else [_hop_table([row for row in rows if isinstance(row, HopRow)])]:
        console.print(report_table)
    wrong = [row for row in rows if not row.exact]
    for row in wrong:
        console.print(f"NOT EQUAL to the oracle: {row.size} {row.policy}, largest error {row.max_abs_error:.1e}")
    return 1 if wrong else 0


def _write(file: Path, rows: Sequence[BenchmarkRow | HopRow], where: str) -> None:
    from timar_ros.files import atomic_path

    with atomic_path(file) as path:
        values = [dataclasses.asdict(row) | {"machine": where} for row in rows]
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _engine(row: BenchmarkRow | HopRow) -> str:
    """A row's name; short, since all columns are to fit into a terminal of eighty."""
    return f"{row.size} {SHORT.get(row.dtype, row.dtype)} {row.policy} x{row.conversations}"


def _hop_table(rows: list[HopRow]) -> object:
    from timar_ros.console import table

    title = "Milliseconds a hop: hop over to motion, speech ahead and not ahead, p50 and p95; idle work, mean"
    columns = ["engine", "ahead p50", "p95", "late p50", "p95", "idle", "RTF", "error"]
    values = [
        [
            _engine(row),
            *(
                f"{1e3 * each:.1f}"
                for each in (row.ahead_p50_s, row.ahead_p95_s, row.late_p50_s, row.late_p95_s, row.idle_mean_s)
            ),
            f"{row.real_time_factor:.2f}",
            f"{row.max_abs_error:.1e}",
        ]
        for row in rows
    ]
    return table(title, columns, values)


def _tables(rows: list[BenchmarkRow]) -> list[object]:
    from timar_ros.console import table

    def ms(seconds: float) -> str:
        return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"

    def rows_of(cells: Callable[[BenchmarkRow], Iterable[str]]) -> list[list[str]]:
        return [[_engine(row), *cells(row)] for row in rows]

    latency = table(
        "Milliseconds a turn: p50 of the plain computation (oracle); turn complete to motion, p50, p95 and p99; idle "
        "work, mean",
        ["engine", "plain", "p50", "p95", "p99", "idle", "gain", "RTF"],
        rows_of(
            lambda row: [
                *map(
                    ms,
                    (row.oracle_p50_s, row.critical_p50_s, row.critical_p95_s, row.critical_p99_s, row.idle_mean_s),
                ),
                f"{row.speedup:.1f}",
                f"{row.real_time_factor:.2f}",
            ]
        ),
    )
    parts = table(
        "Parts of the critical path (ms), and peak memory (MB)",
        ["engine", "speech", "fusion", "head", "rest", "peak"],
        rows_of(
            lambda row: [*map(ms, (row.speech_s, row.fusion_s, row.head_s, row.rest_s)), f"{row.peak_memory_mb:.0f}"]
        ),
    )
    errors = table(
        "Errors against the fp32 oracle: largest and relative. Least data to read (MB) and to compute (GFLOP)",
        ["engine", "error", "of z", "motion", "MB", "GFLOP"],
        rows_of(
            lambda row: [
                *(f"{each:.1e}" for each in (row.max_abs_error, row.relative_error_z, row.relative_error_motion)),
                f"{row.floor_mb:.0f}",
                f"{row.floor_gflop:.1f}",
            ]
        ),
    )
    return [latency, parts, errors]
