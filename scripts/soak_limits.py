#!/usr/bin/env python3
"""Hostile motion for as long as you like, through every profile, counting what breaks a limit.

    python scripts/soak_limits.py [--frames 1000000] [--robots nao,romeo]

Streams noise, leaps, tenfold speed, wandering, broken frames and extremes in chunks with gaps, overlaps, soft stops and
gazes between them, and checks position, velocity, acceleration and jerk (tolerance 1e-6) of every command.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from timar_ros.retarget import JointMotion, Retargeter, RetargetOptions, list_profiles, load_profile
from timar_ros.retarget.check import TOLERANCE, violations

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from hostile import KINDS, hostile

CHUNK = 500


def soak(name: str, frames: int) -> tuple[int, float]:
    """Commands checked, and the largest excess over any limit."""
    profile = load_profile(name)
    rng = np.random.default_rng(len(name))
    retargeter = Retargeter(profile, 100.0, RetargetOptions(timeout=0.3, idle_amplitude=0.05))
    checked, worst, stamp = 0, -np.inf, 0
    last: list[JointMotion] = []
    for index in range(-(-frames // CHUNK)):
        retargeter.push(stamp, 25.0, hostile(KINDS[index % len(KINDS)], CHUNK, seed=index))
        retargeter.enable(rng.random() > 0.05)
        retargeter.set_gaze(bool(rng.random() < 0.05))
        stamp += round((CHUNK + rng.choice([-3, 0, 0, 0, 0.37, 40])) * 4e7)  # overlaps, gaps, off the grid
        part = retargeter.advance(stamp - round(rng.uniform(0, 0.5) * 1e9))
        if len(part):
            worst = max(worst, *violations(profile, JointMotion.join([*last, part])).values())
            checked, last = checked + len(part), [part[-1:]]
    return checked, float(worst)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--robots", default=",".join(list_profiles()))
    args = parser.parse_args()
    failed = False
    for name in args.robots.split(","):
        begun = time.monotonic()
        checked, worst = soak(name, args.frames)
        failed |= worst > TOLERANCE
        verdict = "BROKEN by" if worst > TOLERANCE else "kept; nearest"
        seconds = time.monotonic() - begun
        print(f"{name}: {args.frames} frames, {checked} commands in {seconds:.0f} s: {verdict} {worst:.2g}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
