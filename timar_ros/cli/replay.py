"""`timar replay`: a bag through the whole pipeline again, without ROS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timar_ros.data.replay import ReplayResult

SUMMARY = "run the whole pipeline on a bag's audio and user motion (no ROS), into a new bag and npz"

#: What the bag's own stream_info answers when the command line does not.
FROM_BAG = ("seed", "guidance", "temperature", "sampling_steps", "context_policy", "context_seconds", "mode")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    from timar_ros.cli.generate import add_sampling_arguments

    parser.add_argument("bag", metavar="BAG", help="a bag folder, an .mcap or a .db3; also one that was cut off")
    parser.add_argument("--out", default="out/replay", metavar="FOLDER", help="gets bag/ and motion.npz")
    parser.add_argument(
        "--input",
        choices=("auto", "turns", "audio"),
        default="auto",
        help="audio: cut turns anew; turns: those that the robot cut; auto: turns where the bag has them",
    )
    parser.add_argument("--topics", metavar="YAML", help="which topics of a foreign bag are what (docs/bags.md)")
    parser.add_argument("--robot", default="timar_head", metavar="NAME_OR_YAML", help="robot to move, or 'none'")
    parser.add_argument("--normalising", choices=("running",), default="running", help=argparse.SUPPRESS)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_sampling_arguments(parser)
    parser.set_defaults(**dict.fromkeys(FROM_BAG))
    parser.epilog = "What is not given of seed, guidance, temperature, steps, context and mode is taken from the bag."


def run(args: argparse.Namespace) -> int:
    """Replay; prints what was found before, and how the result compares after."""
    from timar_ros.cli.generate import announce, pipeline_options
    from timar_ros.console import console, progress, stderr
    from timar_ros.data.bag_foreign import Inputs, read_mapping
    from timar_ros.data.bags import BagReader
    from timar_ros.data.recording import find_bag
    from timar_ros.data.replay import recorded_options, replay
    from timar_ros.errors import UserError
    from timar_ros.retarget.profile import load_profile
    from timar_ros.streaming.offline import resolve_model

    out = Path(args.out)
    if (out / "bag").exists():
        raise UserError(f"{out / 'bag'} exists already: choose another --out")
    robot = None if args.robot == "none" else load_profile(args.robot)
    mapping = read_mapping(args.topics) if args.topics else None
    with BagReader(find_bag(args.bag)) as bag:
        if bag.salvaged:
            stderr.print(f"the recording was cut off: {bag.salvaged}; it is read up to its last whole part")
        for note in Inputs(bag, mapping).notes:
            console.print(note)
        recorded = recorded_options(bag)
        delay = _fill(args, recorded)
        options = pipeline_options(args)
        if delay is not None and options.mode == recorded.get("mode"):
            import dataclasses

            options = dataclasses.replace(options, playback_delay=delay)
        model = resolve_model(args.model or _recorded_model(recorded), device=args.device, dtype=args.dtype)
        announce(model)
        if recorded.get("model_sha256") and recorded["model_sha256"] != model.sha256:
            stderr.print(f"the bag was made with {recorded['model']}, which has other weights: the motion will differ")
        with progress() as bar:
            task = bar.add_task("seconds", total=round(bag.seconds), visible=not args.quiet)
            result = replay(
                bag,
                model,
                options,
                out,
                source=args.input,
                mapping=mapping,
                robot=robot,
                progress=lambda done, _total: bar.update(task, completed=round(done)),
            )
    console.print(summary(result))
    console.print(f"written: {result.bag}, {result.motion}", soft_wrap=True)
    return 0


def _fill(args: argparse.Namespace, recorded: dict[str, Any]) -> float | None:
    """Complete the arguments from the bag, else with the usual defaults; returns the recorded playback delay."""
    usual = {"seed": 0, "guidance": 1.0, "temperature": 1.0, "context_policy": "sliding", "mode": "reactive"}
    for name in FROM_BAG:
        if getattr(args, name) is None:
            setattr(args, name, recorded.get(name, usual.get(name)))
    return recorded.get("playback_delay")


def _recorded_model(recorded: dict[str, Any]) -> str | None:
    """The bag's model by name, where it is one that can be had by name."""
    from timar_ros.streaming.offline import RANDOM, shipped_models

    name = recorded.get("model", "")
    return name if name in shipped_models() or RANDOM.fullmatch(name) else None


def summary(result: ReplayResult) -> Any:
    """The table at the end."""
    from timar_ros.console import table

    rows = [
        ("input", result.source),
        ("turns", result.turns),
        ("left out as live", result.dropped),
        ("conversation", f"{result.seconds:.1f} s"),
        ("took", f"{result.took:.1f} s ({result.seconds / max(result.took, 1e-9):.1f} x real time)"),
    ]
    if result.compared:
        rows.append(("same bytes as live", f"{result.identical} of {result.compared} turns"))
        rows.append(("largest difference", f"{result.max_abs_error:.3g}"))
    return table("replay", ("", "value"), rows)
