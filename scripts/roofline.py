"""Measure the times of a large model's turn on this processor, and the lower bound.

    python scripts/roofline.py [--threads 2] [--dtype bfloat16]

Prints the rate of the matrix instructions alone (with a C compiler and AVX-512), then of each operation of a block at a
turn's shapes, with weights and cached keys that are not in the processor's cache, as in a real turn.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from timar_ros.evaluation.bench.benchmark import floor
from timar_ros.model import TimarConfig
from timar_ros.model.packing import PackedLinear
from timar_ros.model.speech_encoder import LARGE_SPEECH, build_speech_encoder
from timar_ros.model.timar import Timar

# 24 independent accumulators hide the instruction's latency; zeros take as long as other values.
PEAK = r"""
#include <stdio.h>
#include <time.h>
static double now(void){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+1e-9*t.tv_nsec;}
#define R(n) INSTRUCTION " %%zmm30,%%zmm31,%%zmm" #n "\n"
int main(void){long n=10000000,k=n;double t=now();
asm volatile("vpxorq %%zmm30,%%zmm30,%%zmm30\nvpxorq %%zmm31,%%zmm31,%%zmm31\n1:" R(0)R(1)R(2)R(3)R(4)R(5)R(6)R(7)
R(8)R(9)R(10)R(11)R(12)R(13)R(14)R(15)R(16)R(17)R(18)R(19)R(20)R(21)R(22)R(23) "dec %0\njnz 1b":"+r"(k)::"memory");
printf("%.0f\n",n*24*FLOP/(now()-t)/1e9);}
"""
INSTRUCTIONS = {torch.bfloat16: ("vdpbf16ps", 64.0), torch.float32: ("vfmadd231ps", 32.0)}
SETS = 16


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    peak = instruction_rate(dtype)
    print("no AVX-512 or no compiler" if peak is None else f"{INSTRUCTIONS[dtype][0]}: {peak} GFLOP/s a thread")
    with torch.inference_mode():
        products = measure(dtype)
    for name, (seconds, flop) in products.items():
        print(f"{name:34} {1e6 * seconds:6.0f} us {flop / seconds / 1e9:6.0f} GFLOP/s")
    with torch.device("meta"):
        model = Timar(TimarConfig(), build_speech_encoder(LARGE_SPEECH))
    flop = floor(model, 1)[0]
    print(f"a turn: {flop / 1e9:.1f} GFLOP")
    if peak is not None:
        print(f"at the instruction's rate on {args.threads} threads: {1e3 * flop / (args.threads * peak * 1e9):.0f} ms")
    matrix = [(seconds, work) for seconds, work in products.values() if work]
    rate = sum(work for _, work in matrix) / sum(seconds for seconds, _ in matrix)
    print(f"at the rate of these products:  {1e3 * flop / rate:.0f} ms, and softmax, norms and copies on top")


def instruction_rate(dtype: torch.dtype) -> int | None:
    """GFLOP/s of one thread with these instructions only; None if they or the compiler are missing."""
    name, flop = INSTRUCTIONS[dtype]
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "peak.c"), Path(folder, "peak")
        source.write_text(PEAK)
        define = [f'-DINSTRUCTION="{name}"', f"-DFLOP={flop}"]
        try:
            subprocess.run(["cc", "-O2", *define, "-o", program, source], check=True, capture_output=True)
            return int(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
        except (OSError, subprocess.CalledProcessError):
            return None


def measure(dtype: torch.dtype) -> dict[str, tuple[float, float]]:
    """Median seconds and FLOPs of each operation by its name."""
    out: dict[str, tuple[float, float]] = {}
    width, heads, keys = 1024, 16, 880
    for rows in (110, 50):
        for inner, outer, activation in (
            (1024, 3072, "none"),
            (1024, 1024, "none"),
            (1024, 4096, "gelu"),
            (4096, 1024, "none"),
        ):
            layers = [
                PackedLinear(torch.randn(outer, inner).to(dtype), torch.zeros(outer, dtype=dtype), activation)
                for _ in range(SETS)
            ]
            x = torch.randn(1, rows, inner).to(dtype)
            name = f"{rows} rows, {inner} -> {outer}{' and gelu' if activation == 'gelu' else ''}"
            out[name] = timed(functools.partial(apply, layers, x)), 2.0 * rows * inner * outer
    cache = torch.randn(SETS, 2, heads, keys, width // heads).to(dtype)
    q = torch.randn(110, heads, width // heads).to(dtype).transpose(0, 1)
    scores = torch.bmm(q, cache[0, 0].transpose(1, 2))
    shares, flop = torch.softmax(scores, -1), 2.0 * 110 * keys * width
    out["queries times keys"] = timed(lambda i: torch.bmm(q, cache[i, 0].transpose(1, 2))), flop
    out["softmax"] = timed(lambda _: torch.softmax(scores, -1)), 0.0
    out["shares times values"] = timed(lambda i: torch.bmm(shares, cache[i, 1])), flop
    norm, x = nn.LayerNorm(width).to(dtype), torch.randn(1, 110, width).to(dtype)
    out["norm"] = timed(lambda _: norm(x)), 0.0
    return out


def apply(layers: list[PackedLinear], x: torch.Tensor, number: int) -> torch.Tensor:
    """One of the layers."""
    out: torch.Tensor = layers[number](x)
    return out


def timed(work: Callable[[int], object]) -> float:
    """Median seconds of a call; successive calls use different sets."""
    seconds = []
    for number in range(4 * SETS):
        start = time.perf_counter()
        work(number % SETS)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[SETS:])


if __name__ == "__main__":
    main()
