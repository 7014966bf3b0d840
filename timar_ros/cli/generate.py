"""`timar generate`: the agent's motion for a recorded conversation, without ROS."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from timar_ros.motion import MOTION_RATE
from timar_ros.options import add_flags, given, options_of
from timar_ros.streaming.options import PipelineOptions

if TYPE_CHECKING:
    from timar_ros.model import Timar

SUMMARY = "make the agent's motion for a recorded conversation (no ROS needed)"

SAMPLING = [name for name in options_of(PipelineOptions) if name not in ("normalising", "playback_delay")]
"""Options of every command that makes motion. A file's motion is not delayed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    sound = parser.add_argument_group("the conversation")
    sound.add_argument("--user", metavar="WAV", help="what the user (the robot's partner) says")
    sound.add_argument("--agent", metavar="WAV", help="what the agent (the robot) says")
    sound.add_argument("--conversation", metavar="WAV", help="both in one stereo file: left the user, right the agent")
    sound.add_argument(
        "--user-motion", metavar="NPZ", help="the user's tracked head: exp [T,50], pose [T,6]; default: no tracker"
    )
    parser.add_argument("--out", metavar="NPZ", required=True, help="where the motion goes: exp, pose, rate, speaking")
    add_sampling_arguments(parser)
    add_flags(parser, PipelineOptions, ["normalising"])
    parser.add_argument(
        "--speech-ahead",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="rolling: the agent's speech comes ahead of its time, as from a speech synthesizer (default: it does)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_sampling_arguments(parser: argparse.ArgumentParser, *, from_bag: bool = False) -> None:
    """Declare which model and how it samples: what every command that makes motion takes.

    :param from_bag: whether what is not given comes from a bag; it is None then.
    """
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model",
        metavar="NAME_OR_PATH",
        help="a folder, .safetensors, the authors' .pth, a shipped model's name, or random-mini (default: timar-mini)",
    )
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
    """Run the subcommand; the exit code."""
    from timar_ros.console import console, progress
    from timar_ros.data.audio import load_audio, load_conversation
    from timar_ros.data.motion import load_motion, write_motion
    from timar_ros.errors import UserError
    from timar_ros.streaming.offline import generate, resolve_model, speaking_frames

    if args.conversation and (args.user or args.agent):
        raise UserError("give either --conversation or --user and --agent, not both")
    if not args.conversation and not (args.user and args.agent):
        raise UserError("give --user and --agent, or a stereo file with --conversation")
    if not str(args.out).lower().endswith(".npz"):
        raise UserError(f"--out {args.out}: the name must end in .npz")
    options = PipelineOptions(**given(args, PipelineOptions))
    if args.conversation:
        user, agent, user_rate = load_conversation(args.conversation)
        agent_rate = user_rate
    else:
        (user, user_rate), (agent, agent_rate) = load_audio(args.user), load_audio(args.agent)
    motion, motion_rate = load_motion(args.user_motion) if args.user_motion else (None, MOTION_RATE)
    model = resolve_model(args.model, device=args.device, dtype=args.dtype, threads=args.threads)
    announce(model)
    began = time.perf_counter()
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
    took = time.perf_counter() - began
    write_motion(args.out, frames, speaking=speaking_frames(agent, agent_rate, len(frames)))
    seconds = len(frames) / MOTION_RATE
    console.print(
        f"{args.out}: {len(frames)} frames, {seconds:.1f} s at 25 Hz; {model.name}, seed {args.seed}; "
        f"made in {took:.1f} s ({took / seconds:.2f} x real time)",
        soft_wrap=True,
    )
    return 0


def announce(model: Timar) -> None:
    """Say loudly when the model was never trained."""
    from timar_ros.console import stderr

    if not model.trained:
        stderr.print(
            f"[bold red]UNTRAINED MODEL[/]: '{model.name}' has random weights; its motion means nothing.",
            soft_wrap=True,
        )
