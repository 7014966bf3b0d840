"""`timar report`: writes a recorded conversation, or a generated motion, as one HTML file with 3D heads and sound."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "make one HTML file of a bag, a run's folder or a generated motion: 3D heads, sound, plots, tables"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument(
        "source", metavar="BAG_OR_RUN", help="a bag, a run's folder with one bag in it, or motion (.npz)"
    )
    parser.add_argument("--out", default="report.html", metavar="HTML", help="file to write")
    parser.add_argument("--truth", metavar="NPZ_OR_TOPIC", help="the agent's true motion, shown next to the prediction")
    parser.add_argument("--compare", metavar="BAG_OR_RUN", help="a second run of the same conversation, side by side")
    parser.add_argument("--user", metavar="WAV", help="the partner's audio, with a motion (.npz) as source")
    parser.add_argument("--agent", metavar="WAV", help="the robot's audio, with a motion (.npz) as source")
    parser.add_argument("--user-motion", metavar="NPZ", help="the partner's motion, with a motion (.npz) as source")
    parser.add_argument("--robot", metavar="NAME_OR_YAML", help="the recorded robot (default: by its joints' names)")
    parser.add_argument("--urdf", metavar="FILE", help="the robot's URDF (default: the bag's, or the package's)")
    parser.add_argument(
        "--flame-model",
        metavar="FILE",
        help="FLAME model (.npz or .pkl) to draw instead of a stylised face",
    )
    parser.add_argument("--title", help="heading of the page")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path."""
    from timar_ros.bags.recording import load_recording, recording_of_motion
    from timar_ros.bags.truth import read_truth
    from timar_ros.console import console
    from timar_ros.errors import UserError
    from timar_ros.evaluation.report.conversation_report import write_report
    from timar_ros.retarget.profile import load_profile

    motion_inputs = [name for name in ("user", "agent", "user_motion") if getattr(args, name) is not None]
    if Path(args.source).suffix in (".npz", ".npy"):
        source = recording_of_motion(args.source, args.user, args.agent, args.user_motion)
    elif motion_inputs:
        raise UserError(f"--{motion_inputs[0].replace('_', '-')} needs a motion file (.npz) as source, not a bag")
    else:
        source = load_recording(args.source)
    path = write_report(
        source,
        args.out,
        truth=None if args.truth is None else read_truth(args.truth, source),
        other=args.compare,
        robot=None if args.robot is None else load_profile(args.robot),
        urdf=args.urdf,
        flame_model=args.flame_model,
        title=args.title,
    )
    console.print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser", soft_wrap=True)
    return 0
