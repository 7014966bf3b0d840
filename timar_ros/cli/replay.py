"""`timar replay`: runs the whole pipeline again on a bag, without ROS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timar_ros.options import flag_values
from timar_ros.streaming.sampling_options import PipelineOptions

if TYPE_CHECKING:
    from timar_ros.bags.replay import ReplayResult
    from timar_ros.retarget.profile import RobotProfile

SUMMARY = "compute the motion of a recorded bag again, without ROS, into a new bag and npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    from timar_ros.cli.generate import add_sampling_arguments

    parser.add_argument("bag", metavar="BAG", help="a bag folder, an .mcap or a .db3; a truncated bag works, too")
    parser.add_argument("--out", default="out/replay", metavar="FOLDER", help="folder for bag/ and motion.npz")
    parser.add_argument(
        "--input",
        choices=("auto", "turns", "audio"),
        default="auto",
        help="audio: cut the audio into turns again; turns: use the bag's turns; auto: turns if the bag has them",
    )
    parser.add_argument("--topics", metavar="YAML", help="file that maps a foreign bag's topics (docs/bags.md)")
    parser.add_argument(
        "--robot", metavar="NAME_OR_YAML", help="robot profile, or 'none' (default: the bag's, else timar_head)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_sampling_arguments(parser, from_bag=True)
    parser.epilog = "Defaults of model, device, number type, threads, sampling and retargeting: the bag's values."


def run(args: argparse.Namespace) -> int:
    """Replay; prints the bag's contents first, and a comparison with the bag's motion at the end."""
    from timar_ros.bags.bag_files import BagReader
    from timar_ros.bags.bag_foreign import Inputs, read_mapping
    from timar_ros.bags.recording import find_bag
    from timar_ros.bags.replay import recorded_run, replay
    from timar_ros.cli.generate import announce
    from timar_ros.console import console, progress, stderr
    from timar_ros.errors import UserError
    from timar_ros.retarget.profile import load_profile
    from timar_ros.streaming.offline import resolve_model

    out = Path(args.out)
    if (out / "bag").exists():
        raise UserError(f"{out / 'bag'} exists already: choose another --out")
    chosen = load_profile(args.robot) if args.robot not in (None, "none") else None
    mapping = read_mapping(args.topics) if args.topics else None
    with BagReader(find_bag(args.bag)) as bag:
        if bag.salvaged:
            stderr.print(f"the recording was cut off: {bag.salvaged}; only its complete part is read")
        for note in (*bag.notes, *bag.clock.warnings):
            stderr.print(note, markup=False, soft_wrap=True)
        for note in Inputs(bag, mapping).notes:
            console.print(note)
        recorded = recorded_run(bag)
        robot = None if args.robot == "none" else chosen or _recorded_robot(recorded.robot)
        options = PipelineOptions(**_options(args, recorded.options))
        model = resolve_model(
            args.model or _known_model(recorded.model),
            device=args.device or _known_device(recorded.device),
            dtype=args.dtype or recorded.dtype or "float32",
            threads=args.threads or recorded.threads,
            speech=args.speech,
        )
        announce(model)
        if recorded.model_sha256 not in ("", model.sha256):
            stderr.print(f"the bag's model {recorded.model} has other weights: the motion will differ")
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
                recorded=recorded,
                progress=lambda done, _total: bar.update(task, completed=round(done)),
            )
    console.print(summary(result))
    console.print(f"written: {result.bag}, {result.motion}", soft_wrap=True)
    return 0


def _options(args: argparse.Namespace, recorded: dict[str, Any]) -> dict[str, Any]:
    """The options of the flags, else of the bag, else the defaults."""
    chosen = {name: value for name, value in flag_values(args, PipelineOptions).items() if value is not None}
    options = {**recorded, **chosen}
    if options.get("mode") != recorded.get("mode"):
        options.pop("playback_delay", None)  # the bag's delay belongs to the other mode
    return options


def _known_model(name: str) -> str | None:
    """The bag's model, if it can be loaded by its name."""
    from timar_ros.streaming.offline import RANDOM, shipped_models

    return name if name in shipped_models() or RANDOM.fullmatch(name) else None


def _recorded_robot(name: str) -> RobotProfile:
    """The bag's robot; timar_head if the bag names none, or one without a profile on this machine."""
    from timar_ros.console import stderr
    from timar_ros.errors import UserError
    from timar_ros.retarget.profile import load_profile

    try:
        return load_profile(name or "timar_head")
    except UserError as error:
        stderr.print(f"the bag's robot has no profile here ({error}): using timar_head")
        return load_profile("timar_head")


def _known_device(name: str) -> str:
    """The bag's device if this machine has it, else the CPU."""
    import torch

    available = name.startswith("cuda") and torch.cuda.is_available()
    return name if available else "cpu"


def summary(result: ReplayResult) -> Any:
    """The result as a table."""
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
