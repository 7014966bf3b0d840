#!/usr/bin/env python3
"""Print the table of docs/robots.md: accuracy and limits of each robot's motion, commanded and simulated.

python scripts/measure_robots.py [--motion samples/conversation_agent.npz]
"""

from __future__ import annotations

import argparse

import numpy as np

from timar_ros.data.motion_files import read_motion
from timar_ros.resources import share
from timar_ros.retarget import list_profiles, load_profile
from timar_ros.retarget.robot_check import SETTLED, check_motion, lag_and_correlation
from timar_ros.simulation.head import MujocoHead

HEAD = (
    "| robot | neck | lag | correlation | share of pos. / vel. / acc. / jerk | broken limits | lost angle |"
    " MuJoCo error p95 | MuJoCo lag |"
)


def row(name: str, frames: np.ndarray) -> str:
    profile = load_profile(name)
    check, motion = check_motion(profile, name, frames)
    head = MujocoHead(profile)
    measured = np.empty_like(motion.position)
    for index, wanted in enumerate(motion.position):
        head.command(wanted)
        head.step(0.01)
        measured[index] = head.read().position
    necks = len(profile.neck)
    error = np.degrees(np.percentile(np.abs(measured - motion.position)[:, :necks], 95, axis=0)).max()
    begin, end = round(100 * SETTLED), round(4 * len(frames))
    mover = int(np.argmax(motion.wanted[:, :necks].std(axis=0)))
    lag, _ = lag_and_correlation(motion.wanted[begin:end, mover], measured[begin:end, mover], 100.0)
    use = " / ".join(f"{100 * check.use[limit]:.0f}" for limit in ("position", "velocity", "acceleration", "jerk"))
    broken = "none" if check.passed else f"by {check.worst:.2g}"
    axes = ">".join("xyz"[int(np.argmax(np.abs(joint.axis)))] for joint in profile.neck)
    return (
        f"| {name} | {axes} | {abs(1000 * check.lag):.0f} ms | {check.correlation:.3f} | {use} % | {broken} | "
        f"{np.degrees(check.lost):.1f}° | {error:.2f}° | {1000 * lag:.0f} ms |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--motion", default=str(share("samples", "conversation_agent.npz")))
    args = parser.parse_args()
    frames = read_motion(args.motion)
    print(HEAD)
    print("|" + "---|" * 9)
    for name in list_profiles():
        print(row(name, frames), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
