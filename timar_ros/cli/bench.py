"""`timar bench`: latency and throughput of the streaming engine, checked against the oracle in the same run."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from timar_ros.errors import UserError
from timar_ros.options import add_flags
from timar_ros.streaming.options import PipelineOptions

if TYPE_CHECKING:
    from timar_ros.evaluation.benchmark import BenchmarkRow
    from timar_ros.model import Timar

SUMMARY = "Measure the engine's latency, throughput and memory beside the oracle's."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    sizes, dtypes = ["mini", "base", "large", "huge"], ["float32", "bfloat16", "float16", "int8", "auto"]
    parser.add_argument(
        "--size", nargs="+", default=["mini"], choices=sizes, help="sizes of models with random weights"
    )
    parser.add_argument("--model", type=Path, help="a trained model's folder instead")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=dtypes, help="one row each")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    add_flags(parser, PipelineOptions, ["context_policy"], several=["context_policy"])
    parser.add_argument("--conversations", nargs="+", type=int, default=[1], help="in a batch; one row each")
    parser.add_argument("--turns", type=int, default=12, help="timed turns, at least 12")
    parser.add_argument("--threads", type=int, help="processor threads; default: what torch chooses")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 when an fp32 engine is not the oracle's equal."""
    from timar_ros.errors import require

    require("torch", "pip install 'torch>=2.4'", "timar bench")
    import torch

    from timar_ros.console import console, progress
    from timar_ros.evaluation.benchmark import MINIMUM_TURNS, benchmark, machine
    from timar_ros.model.precision import pick_device

    if args.threads is not None:
        if args.threads < 1:
            raise UserError(f"--threads {args.threads}: must be at least 1")
        torch.set_num_threads(args.threads)
    if min(args.conversations) < 1:
        raise UserError(f"--conversations {min(args.conversations)}: must be at least 1")
    if args.turns < MINIMUM_TURNS:
        raise UserError(f"--turns {args.turns}: percentiles need at least {MINIMUM_TURNS}")
    device = pick_device(args.device)
    rows: list[BenchmarkRow] = []
    for size in args.size if args.model is None else [args.model.name]:
        oracle = _model(args.model, size).to(device, torch.float32).eval()
        for dtype, policy, count in itertools.product(args.dtype, args.context_policy, args.conversations):
            with progress() as bar:
                total = oracle.config.context_turns + args.turns
                task = bar.add_task(f"{size} {dtype} {policy} x{count}", total=total)
                advance = functools.partial(bar.advance, task)
                rows.append(benchmark(oracle, size, dtype, policy, count, args.turns, advance))
            if args.json is not None:  # after every row, so that a run that is cut short leaves what it measured
                _write(args.json, rows, machine(oracle.device))
    where = machine(oracle.device)
    console.print(f"{where}; window of 8 turns, sampling as the model's configuration says; random input")
    for made in _tables(rows):
        console.print(made)
    wrong = [row for row in rows if not row.exact]
    for row in wrong:
        console.print(f"NOT EQUAL to the oracle: {row.size} {row.policy}, largest error {row.max_abs_error:.1e}")
    return 1 if wrong else 0


def _write(file: Path, rows: list[BenchmarkRow], where: str) -> None:
    from timar_ros.data.files import atomic_path

    with atomic_path(file) as path:
        values = [dataclasses.asdict(row) | {"machine": where} for row in rows]
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _model(path: Path | None, size: str) -> Timar:
    from timar_ros.model import TimarConfig, create_timar, load_timar

    if path is not None:
        return load_timar(path)
    return create_timar(TimarConfig.of_size(size), zero_head=False)


def _tables(rows: list[BenchmarkRow]) -> list[object]:
    from timar_ros.console import table

    def name(row: BenchmarkRow) -> str:
        return f"{row.size} {row.dtype} {row.policy} x{row.conversations}"

    def ms(seconds: float) -> str:
        return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"

    def rows_of(cells: Callable[[BenchmarkRow], Iterable[str]]) -> list[list[str]]:
        return [[name(row), *cells(row)] for row in rows]

    latency = table(
        "Milliseconds a turn: the oracle's p50; turn complete to motion, p50, p95 and p99; idle work, mean",
        ["engine", "oracle", "p50", "p95", "p99", "idle", "gain", "RTF"],
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
        "Where the critical path goes (ms), and peak memory (MB)",
        ["engine", "speech", "fusion", "head", "rest", "peak"],
        rows_of(
            lambda row: [*map(ms, (row.speech_s, row.fusion_s, row.head_s, row.rest_s)), f"{row.peak_memory_mb:.0f}"]
        ),
    )
    errors = table(
        "Against the fp32 oracle: largest and relative errors. The least to read (MB) and to compute (GFLOP)",
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
