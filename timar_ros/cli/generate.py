"""`timar generate`: computes the agent's motion for a recorded conversation, without ROS."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from timar_ros.motion import MOTION_RATE
from timar_ros.options import add_flags, flag_values, options_of
from timar_ros.streaming.sampling_options import PipelineOptions

if TYPE_CHECKING:
    from timar_ros.model import Timar

SUMMARY = "make the agent's motion for a recorded conversation (no ROS needed)"

SAMPLING = [name for name in options_of(PipelineOptions) if name not in ("normalising", "playback_delay")]
"""Options of every command that samples motion. A file's motion has no playback delay."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    sound = parser.add_argument_group("the conversation")
    sound.add_argument("--user", metavar="WAV", help="speech of the user (the robot's partner) (default: silence)")
    sound.add_argument("--agent", metavar="WAV", help="speech of the agent (the robot) (default: silence)")
    sound.add_argument("--conversation", metavar="WAV", help="both in one stereo file: user left, agent right")
    sound.add_argument(
        "--user-motion",
        metavar="NPZ",
        help="the user's tracked motion: exp [T, 50], pose [T, 6] (head, then jaw) (default: not tracked)",
    )
    parser.add_argument(
        "--out",
        metavar="NPZ",
        required=True,
        help="file to write: exp [T, 50], pose [T, 6] (head, then jaw), rate, speaking",
    )
    add_sampling_arguments(parser)
    add_flags(parser, PipelineOptions, ["normalising"])
    parser.add_argument(
        "--speech-ahead",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="rolling: the agent's speech comes ahead of its time, as from a speech synthesizer (default: on)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_sampling_arguments(parser: argparse.ArgumentParser, *, from_bag: bool = False) -> None:
    """Declare the model and sampling arguments of every command that samples motion.

    :param from_bag: whether the bag supplies the defaults; the arguments' own default is then None.
    """
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model",
        metavar="NAME_OR_PATH",
        help="a folder, .safetensors, the authors' .pth, a shipped model's name, or random-mini (default: timar-mini)",
    )
    model.add_argument("--speech", metavar="FOLDER", help="speech encoder, if the model names none (the authors' .pth)")
    place = {"device": "cpu", "dtype": "float32"} if not from_bag else {"device": None, "dtype": None}
    model.add_argument("--device", default=place["device"], help="cpu, cuda, cuda:N or auto")
    model.add_argument("--dtype", default=place["dtype"], help="float32, bfloat16, float16, int8 or auto")
    model.add_argument(
        "--threads",
        type=_threads,
        metavar="N",
        help="CPU threads (default: 1 for a small model, else torch's choice)",
    )
    sampling = parser.add_argument_group("sampling")
    add_flags(sampling, PipelineOptions, SAMPLING, defaults=dict.fromkeys(SAMPLING) if from_bag else None)


def _threads(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and 1024")
    return number


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit code."""
    from timar_ros.console import console, progress, stderr
    from timar_ros.data.audio_files import load_audio, load_conversation
    from timar_ros.data.motion_files import load_motion, write_motion
    from timar_ros.errors import UserError
    from timar_ros.streaming.offline import generate, resolve_model, speaking_frames
    from timar_ros.streaming.sound_intake import MIX

    if args.conversation and (args.user or args.agent):
        raise UserError("give either --conversation or --user and --agent, not both")
    if not (args.conversation or args.user or args.agent):
        raise UserError("no audio: give --user, --agent or both, or a stereo file with --conversation")
    if not str(args.out).lower().endswith(".npz"):
        raise UserError(f"--out {args.out}: the name must end in .npz")
    options = PipelineOptions(**flag_values(args, PipelineOptions))
    if args.channel != MIX and not args.user:
        raise UserError("--channel chooses a channel of --user's file: give that")
    if args.conversation:
        user, agent, user_rate = load_conversation(args.conversation)
        agent_rate = user_rate
    else:
        # A speaker without a file is silent.
        user, user_rate = load_audio(args.user or args.agent, args.channel)
        agent, agent_rate = load_audio(args.agent or args.user)
        user, agent = user * bool(args.user), agent * bool(args.agent)
    motion, motion_rate = load_motion(args.user_motion) if args.user_motion else (None, MOTION_RATE)
    model = resolve_model(args.model, device=args.device, dtype=args.dtype, threads=args.threads, speech=args.speech)
    announce(model)
    for role, file in (("user", args.user), ("agent", args.agent)):
        if not (file or args.conversation):
            stderr.print(f"no --{role}: the {role} is silent")
    started = time.perf_counter()
    with progress() as bar:
        task = bar.add_task("turns", total=None, visible=not args.quiet)
        frames = generate(
            model,
            options,
            user,
            agent,
            motion,
            lambda done, total: bar.update(task, completed=done, total=total),
            user_rate=user_rate,
            agent_rate=agent_rate,
            motion_rate=motion_rate,
            speech_ahead=args.speech_ahead,
        )
    took = time.perf_counter() - started
    write_motion(args.out, frames, speaking=speaking_frames(agent, agent_rate, len(frames)))
    seconds = len(frames) / MOTION_RATE
    console.print(
        f"{args.out}: {len(frames)} frames, {seconds:.1f} s at 25 Hz; {model.name}, seed {args.seed}; "
        f"made in {took:.1f} s ({took / seconds:.2f} x real time)",
        soft_wrap=True,
    )
    return 0


def announce(model: Timar) -> None:
    """Print a clear warning when the model is untrained."""
    from timar_ros.console import stderr

    if not model.trained:
        stderr.print(
            f"[bold red]UNTRAINED MODEL[/]: '{model.name}' has random weights; its motion means nothing.",
            soft_wrap=True,
        )
