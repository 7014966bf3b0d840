#!/usr/bin/env python3
"""Send hostile motion through every profile, for any number of frames, and count violations.

    python scripts/soak_limits.py [--frames 1000000] [--robots nao,romeo] [--log soak.jsonl]

Streams noise, jumps, tenfold speed, drift, broken frames and extremes in chunks with gaps, overlaps, cancels, soft
stops and gazes between them, in stretches of 50,000 frames that each begin at a measured pose and end by easing out.
Checks every command's position, velocity, acceleration and jerk (tolerance 1e-6), and that they belong to one
motion without jumps; that time is an even grid; that the first velocity is 0 and that every plan of a trajectory (one
per chunk) continues from the last command and ends with velocity and acceleration 0. ``--log`` stores each finished
stretch, and an interrupted run continues from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from timar_ros.retarget import Retargeter, RetargetOptions, RobotProfile, list_profiles, load_profile
from timar_ros.retarget.robot_check import TOLERANCE

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from support.hostile import KINDS, hostile
from support.limit_checker import LimitChecker

CHUNK = 500
STRETCH = 50_000
RATE = 100.0


def soak(profile: RobotProfile, frames: int, seed: int) -> LimitChecker:
    """Run one stretch, from a random pose to the end of easing out."""
    rng = np.random.default_rng([seed, len(profile.name)])
    checker = LimitChecker(profile)
    options = RetargetOptions(timeout=0.3, idle_amplitude=0.05, gaze_mode="yield" if seed % 2 else "nods")
    retargeter = Retargeter(profile, RATE, options)
    retargeter.start(0, dict(zip(profile.names, rng.uniform(-2, 2, len(profile.names)), strict=True)))
    stamp, now = 0, 0
    for index in range(-(-frames // CHUNK)):
        kind = KINDS[(seed + index) % len(KINDS)]
        retargeter.push(stamp, 25.0, hostile(kind, CHUNK, seed=1000 * seed + index))
        retargeter.enable(rng.random() > 0.05)
        retargeter.set_gaze(bool(rng.random() < 0.05))
        if rng.random() < 0.2:  # in the middle of the chunk: the rest of the chunk is dropped
            now = stamp + round(rng.uniform(1, CHUNK - 5) * 4e7)
            checker.take(retargeter.advance(now), retargeter)
            checker.note("commands taken back before a cancel [ns]", float(now - retargeter.cancel(now)))
        stamp += round((CHUNK + rng.choice([-3, 0, 0, 0, 0.37, 40])) * 4e7)  # overlaps, gaps, off the grid
        now = max(now, stamp - round(rng.uniform(0, 0.5) * 1e9))
        checker.take(retargeter.advance(now), retargeter)
        checker.take_plan(retargeter.plan(now + 1_000_000_000), retargeter)
    retargeter.enable(True)
    retargeter.set_gaze(False)
    retargeter.ease_out()
    for _ in range(20):
        now += 1_000_000_000
        checker.take(retargeter.advance(now), retargeter)
        if retargeter.ease_out_done():
            break
    assert checker.last is not None
    checker.note("velocity after easing out", float(np.abs(checker.last.velocity).max()))
    return checker


def rows_of(log: Path | None) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Stretches of a log, by robot, seed and frames."""
    if log is None or not log.is_file():
        return {}
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return {(row["robot"], row["seed"], row["frames"]): row for row in rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--robots", default=",".join(list_profiles()))
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    robots = args.robots.split(",")
    sizes = [min(STRETCH, args.frames - begin) for begin in range(0, args.frames, STRETCH)]
    rows = rows_of(args.log)
    # Every robot's first stretch, then every robot's second, to find violations early.
    todo = [(name, seed, size) for seed, size in enumerate(sizes) for name in robots if (name, seed, size) not in rows]
    started = time.monotonic()
    for index, (name, seed, size) in enumerate(todo):
        checker = soak(load_profile(name), size, seed)
        row = {"robot": name, "seed": seed, "frames": size, "commands": checker.commands, "worst": checker.worst}
        rows[name, seed, size] = row
        if args.log is not None:
            with args.log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        minutes = (time.monotonic() - started) / (index + 1) * (len(todo) - index - 1) / 60
        print(f"{name} {seed + 1}/{len(sizes)}, {minutes:.1f} min left", file=sys.stderr, flush=True)
        for what, excess in checker.worst.items():
            if excess > TOLERANCE:
                print(f"{name}, seed {seed}: {what} exceeded by {excess:.3g}", flush=True)
    failed = False
    for name in robots:
        own_rows = [rows[name, seed, size] for seed, size in enumerate(sizes)]
        broken = [row["seed"] for row in own_rows if max(row["worst"].values()) > TOLERANCE]
        failed |= bool(broken)
        commands, verdict = (
            sum(row["commands"] for row in own_rows),
            f"BROKEN with seeds {broken}" if broken else "all kept",
        )
        print(f"{name}: {args.frames} frames, {commands} commands: {verdict}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
