"""`timar film`: writes a recorded conversation as a film: the robot, both faces, the active speaker, the sound."""

from __future__ import annotations

import argparse

SUMMARY = "make a film (MP4 with sound, or GIF) of a bag or a run's folder: the robot, both faces, the active speaker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("source", metavar="BAG_OR_RUN", help="a bag, or a run's folder with one bag in it")
    parser.add_argument("--out", default="talk.mp4", metavar="MP4", help="film to write")
    parser.add_argument("--gif", metavar="GIF", help="GIF to write, too (silent, 640 pixels wide)")
    parser.add_argument("--begin", type=float, default=0.0, metavar="S", help="time in the conversation to begin at")
    parser.add_argument("--end", type=float, metavar="S", help="time in the conversation to end at (default: its end)")
    parser.add_argument("--width", type=int, default=1280, metavar="N", help="width in pixels")
    parser.add_argument("--height", type=int, default=720, metavar="N", help="height in pixels")
    parser.add_argument("--rate", type=float, default=25.0, metavar="HZ", help="pictures per second")
    parser.add_argument("--theme", choices=("light", "dark"), default="light", help="the colours around the heads")
    parser.add_argument("--robot", metavar="NAME_OR_YAML", help="the recorded robot (default: by its joints' names)")
    parser.add_argument("--urdf", metavar="FILE", help="the robot's URDF (default: the bag's, or the package's)")
    parser.add_argument("--flame-model", metavar="FILE", help="FLAME model to draw instead of a stylised face")


def run(args: argparse.Namespace) -> int:
    """Write the film and print its path."""
    import tempfile
    from pathlib import Path

    from timar_ros.bags.recording import load_recording
    from timar_ros.console import console, progress
    from timar_ros.errors import UserError
    from timar_ros.evaluation.report.conversation_report import write_report
    from timar_ros.evaluation.report.film_page import check_film, write_film, write_gif
    from timar_ros.retarget.profile import load_profile

    if not 1.0 <= args.rate <= 60.0:
        raise UserError(f"--rate {args.rate:g}: must be from 1 to 60 Hz")
    if Path(args.out).suffix.lower() != ".mp4":
        raise UserError(f"--out {args.out}: films are MP4; give a name that ends in .mp4, and --gif for a GIF")
    recording = load_recording(args.source)
    size = (args.width, args.height)
    check_film(recording, args.begin, args.end, size)
    with tempfile.TemporaryDirectory(prefix="timar_film_") as folder:
        report = write_report(
            recording,
            Path(folder) / "report.html",
            robot=None if args.robot is None else load_profile(args.robot),
            urdf=args.urdf,
            flame_model=args.flame_model,
        )
        with progress() as bar:
            task = bar.add_task("pictures", total=None)
            path = write_film(
                recording,
                report,
                args.out,
                begin=args.begin,
                end=args.end,
                size=size,
                rate=args.rate,
                theme=args.theme,
                on_picture=lambda done, count: bar.update(task, completed=done, total=count),
            )
    console.print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    if args.gif is not None:
        gif = write_gif(path, args.gif)
        console.print(f"{gif} ({gif.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    return 0
