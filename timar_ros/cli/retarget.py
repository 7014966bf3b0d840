"""`timar retarget`: converts a motion file to a table of joint commands within a robot's limits."""

from __future__ import annotations

import argparse

from timar_ros.motion import MOTION_RATE

SUMMARY = "convert head motion to a robot's joint commands, within its limits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `timar retarget`."""
    parser.add_argument("--robot", required=True, metavar="NAME_OR_YAML", help="see `timar robots list`, or a profile")
    parser.add_argument("--motion", required=True, metavar="O.npz", help="motion in DualTalk's layout, or .npy [T, 56]")
    parser.add_argument("--out", required=True, metavar="joints.csv", help="table to write")
    parser.add_argument("--rate", type=float, default=100.0, help="rows per second [Hz]")
    parser.add_argument("--gain", type=float, default=1.0, help="factor of the head's rotation")
    parser.add_argument("--jaw-gain", type=float, default=1.0, help="factor of the jaw's opening")
    parser.add_argument(
        "--neutral", choices=("none", "running"), default="none", help="running: remove the head's running mean pose"
    )
    parser.add_argument("--neutral-seconds", type=float, default=30.0, help="time constant of --neutral running [s]")


def run(args: argparse.Namespace) -> int:
    """Run `timar retarget`."""
    from pathlib import Path

    import numpy as np

    from timar_ros.console import console
    from timar_ros.data.motion_files import read_motion
    from timar_ros.errors import UserError
    from timar_ros.retarget import RetargetOptions, load_profile, retarget_motion, write_joints_csv

    profile = load_profile(args.robot)
    options = RetargetOptions(
        speaking_gain=args.gain,
        listening_gain=args.gain,
        jaw_gain=args.jaw_gain,
        neutral=args.neutral,
        neutral_seconds=args.neutral_seconds,
    )
    frames = read_motion(args.motion)
    out = Path(args.out)
    if not out.parent.is_dir():
        raise UserError(f"folder {out.parent} does not exist: create it or choose another --out")
    motion = retarget_motion(profile, frames, MOTION_RATE, args.rate, options)
    try:
        write_joints_csv(motion, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from error
    lost = np.degrees(motion.lost_angle)
    console.print(
        f"{profile.title}: {len(motion)} rows at {args.rate:g} Hz for {', '.join(profile.names)} -> {out}; "
        f"unreachable angle of this neck: median {np.median(lost):.1f} deg, largest {lost.max():.1f} deg"
    )
    return 0
