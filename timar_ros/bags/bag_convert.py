"""Conversion of bags: a recorded conversation as a DualTalk-style pair, and such a pair as a bag.

In a pair, speaker 1 is the user and speaker 2 the agent: ``X_speaker1.wav``, ``X_speaker1.npz`` and so on, with ``exp``
[T, 50], ``pose`` [T, 6] (head, then jaw) and ``rate``.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timar_ros.motion import MODEL_RATE, MOTION_RATE, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from timar_ros.bags.recording import Motion

TRUTH_TOPIC = "/agent/motion_truth"
CHUNK = 320
"""Samples in a message: 20 ms at 16 kHz."""

Types = Mapping[str, Any]
Event = tuple[int, str, Any]
"""Time of arrival [ns], topic, message."""


@dataclass
class Converted:
    """The written files, and their missing parts."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def from_bag(bag: str | Path, out: str | Path, name: str | None = None, truth: str | None = None) -> Converted:
    """Write a recorded conversation as a pair.

    Untracked frames hold the last known pose (at the beginning: the first one); the result has their number.

    :param name: the pair's name; default: the bag's.
    :param truth: a FlameMotion topic with the agent's true motion, used instead of the model's.
    :raises UserError: when the bag holds no conversation, or a speaker's audio is missing.
    """
    from timar_ros.bags.recording import Motion, load_recording
    from timar_ros.bags.truth import read_truth
    from timar_ros.data.audio_files import write_audio
    from timar_ros.errors import UserError

    recording = load_recording(bag)
    if recording.user_audio is None or recording.agent_audio is None:
        raise UserError(f"{bag}: both speakers' audio is needed to make a pair")
    name, folder = name or recording.name, Path(out)
    count = int(recording.seconds * MOTION_RATE)
    if not count:
        raise UserError(f"{bag}: the conversation is shorter than one motion frame")
    converted = Converted(seconds=count / MOTION_RATE, notes=list(recording.warnings))
    agent = recording.agent_motion
    if truth is not None:
        import numpy as np

        frames = read_truth(truth, recording)
        agent = Motion(np.arange(len(frames)) / MOTION_RATE, frames, np.zeros(0, np.uint8))
    for number, audio, motion in ((1, recording.user_audio, recording.user_motion), (2, recording.agent_audio, agent)):
        path = folder / f"{name}_speaker{number}.wav"
        write_audio(path, audio[: count * SAMPLES_PER_FRAME])
        converted.files.append(path)
        _write_track(converted, path.with_suffix(".npz"), motion, converted.seconds)
    return converted


def _write_track(converted: Converted, path: Path, motion: Motion | None, seconds: float) -> None:
    from timar_ros.data.motion_files import write_motion

    if motion is None:
        converted.notes.append(f"{path.name} is not written: this head's motion is not in the bag")
        return
    frames, missing = _filled(motion.at_rate(seconds))
    if missing:
        converted.notes.append(
            f"{path.name}: {missing} of {len(frames)} frames were not wholly tracked; the last pose is held"
        )
    write_motion(path, frames)
    converted.files.append(path)


def _filled(frames: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Frames without NaN, and how many had any; columns without known values become 0."""
    import numpy as np

    from timar_ros.bags.recording import hold

    unknown = np.isnan(frames)
    # Before the first known value of a column, use that value.
    first = np.take_along_axis(frames, np.argmax(~unknown, axis=0)[None], axis=0)
    held = hold(frames)
    return np.nan_to_num(np.where(np.isnan(held), first, held)), int(unknown.any(axis=1).sum())


def to_bag(folder: str | Path, name: str, out: str | Path, *, swap: bool = False, start_ns: int = 0) -> Converted:
    """Write a pair as a bag: both voices, the user's motion, and the agent's true motion on its own topic.

    :param folder: the folder of ``NAME_speaker1.wav`` and the other files.
    :param swap: speaker 2 is the user.
    :param start_ns: stamp of the first sample.
    :raises UserError: when a file is missing or cannot be read.
    """
    from timar_ros.bags.bag_files import TOPICS, BagWriter
    from timar_ros.data.audio_files import read_audio
    from timar_ros.data.motion_files import load_motion

    user, agent = (2, 1) if swap else (1, 2)
    base = Path(folder)
    converted = Converted()
    voices = {role: read_audio(base / f"{name}_speaker{n}.wav") for role, n in (("user", user), ("agent", agent))}
    tracks = {}
    for topic, number in (("/user/motion", user), (TRUTH_TOPIC, agent)):
        path = base / f"{name}_speaker{number}.npz"
        if path.exists():
            tracks[topic] = load_motion(path)
        else:
            converted.notes.append(f"no {path.name}: {topic} is not written")
    with BagWriter(out) as bag:
        sources = []
        for role, voice in voices.items():
            bag.add_topic(f"/{role}/audio", TOPICS[f"{role}/audio"])
            sources.append(_chunks(bag.types, f"/{role}/audio", voice, start_ns))
        for topic, (frames, rate) in tracks.items():
            bag.add_topic(topic, TOPICS["user/motion"])
            sources.append(_frames(bag.types, topic, frames, rate, start_ns))
        for arrived, topic, message in heapq.merge(*sources, key=lambda event: event[0]):
            bag.write(topic, arrived, message)
    converted.files.append(Path(out))
    converted.seconds = max(len(voice) for voice in voices.values()) / MODEL_RATE
    return converted


def _chunks(types: Types, topic: str, voice: NDArray[np.float32], start_ns: int) -> Iterator[Event]:
    """A voice in chunks, each at the time of its end."""
    from timar_ros.bags import bag_messages

    for first in range(0, len(voice), CHUNK):
        part, last = voice[first : first + CHUNK], first + CHUNK >= len(voice)
        at, over = (start_ns + index * 62_500 for index in (first, first + len(part)))
        yield over, topic, bag_messages.audio_chunk(types, at, first, MODEL_RATE, part, end=last)


def _frames(types: Types, topic: str, frames: NDArray[np.float32], rate: float, start_ns: int) -> Iterator[Event]:
    """A head's motion, frame by frame."""
    from timar_ros.bags import bag_messages

    for index in range(len(frames)):
        at = start_ns + round(index * 1e9 / rate)
        yield at, topic, bag_messages.flame_motion(types, at, rate, frames[index : index + 1])


def add_from_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `timar data from-bag`."""
    parser.add_argument("bags", nargs="+", metavar="BAG", help="bags, or run folders with one bag in each")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="gets X_speaker1/2 .wav and .npz")
    parser.add_argument("--name", help="name of the pair (with one bag; default: the bag's)")
    parser.add_argument("--truth", metavar="TOPIC", help="FlameMotion topic with the agent's true motion")


def run_from_bag(args: argparse.Namespace) -> int:
    """Convert each bag; print the written files and their missing parts."""
    from timar_ros.errors import UserError

    if args.name and len(args.bags) > 1:
        raise UserError("--name goes with one bag")
    for bag in args.bags:
        _tell(from_bag(bag, args.out, args.name, args.truth))
    return 0


def add_to_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `timar data to-bag`."""
    parser.add_argument("folder", help="folder with NAME_speaker1.wav, NAME_speaker2.wav and their .npz")
    parser.add_argument("name", help="name of the pair")
    parser.add_argument("--out", required=True, metavar="BAG", help="folder of the bag; it must not exist yet")
    parser.add_argument("--swap", action="store_true", help="speaker 2 is the user (default: speaker 1)")


def run_to_bag(args: argparse.Namespace) -> int:
    """Convert the pair; print the written files and their missing parts."""
    _tell(to_bag(args.folder, args.name, args.out, swap=args.swap))
    return 0


def _tell(converted: Converted) -> None:
    from timar_ros.console import console

    for note in converted.notes:
        console.print(note, soft_wrap=True)
    names = ", ".join(str(path) for path in converted.files)
    console.print(f"{converted.seconds:.1f} s: {names}", soft_wrap=True)
