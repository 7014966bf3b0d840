"""Synthetic two-party conversations in DualTalk's folder layout: deterministic for a seed, resumable, in parallel.

A conversation depends on (seed, its number) alone: making more conversations later, in another order or with another
number of processes gives the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from timar_ros.data.motion_files import write_motion
from timar_ros.errors import UserError
from timar_ros.files import atomic_path
from timar_ros.motion import MODEL_RATE, MOTION_RATE
from timar_ros.parallel import run_all
from timar_ros.synth.dialogue import Utterance, hold_conversation, record
from timar_ros.synth.manner import draw_liveliness, manner_of
from timar_ros.synth.motion_rules import move
from timar_ros.synth.voices import Voice, require_engines, voices

FORMAT = 2
MANIFEST = "synth.json"


@dataclass(frozen=True)
class Conversation:
    """``audio [2, n]`` at 16 kHz in [-1, 1], ``motion [2, T, 56]`` in TIMAR order, and the utterances with their times.

    ``liveliness``: how much each head moves, relative to a person of average manners (:class:`Manner`).
    """

    audio: NDArray[np.float32]
    motion: NDArray[np.float32]
    utterances: tuple[Utterance, ...]
    cast: tuple[Voice, Voice]
    liveliness: tuple[float, float] = (1.0, 1.0)


def split_of(number: int) -> str:
    """Eight of ten conversations are for training, one for test, one out of distribution."""
    return {8: "test", 9: "ood"}.get(number % 10, "train")


def make_conversation(
    seed: int, number: int, seconds: tuple[float, float] = (20.0, 60.0), ood: bool = False
) -> Conversation:
    """One conversation, the same for the same arguments on every machine with the same voices installed.

    :param seconds: shortest and longest length; whole seconds are drawn between them.
    :param ood: use voices and manners that are not in the training split.
    :raises UserError: a speech engine is missing.
    """
    rng = np.random.default_rng([seed, number])
    pool = voices(ood)
    one, other = rng.choice(len(pool), 2, replace=False)
    cast = (pool[one], pool[other])
    duration = float(rng.integers(round(seconds[0]), round(seconds[1]) + 1))
    return converse(cast, duration, rng, ood)


def converse(cast: tuple[Voice, Voice], duration: float, rng: np.random.Generator, ood: bool = False) -> Conversation:
    """Let two voices talk for ``duration`` seconds and move by their manners."""
    # A day's liveliness is independent of the voice: speech must not reveal it.
    manners = (
        replace(manner_of(cast[0], ood), liveliness=draw_liveliness(rng)),
        replace(manner_of(cast[1], ood), liveliness=draw_liveliness(rng)),
    )
    dialogue = hold_conversation(cast, (manners[0].habits, manners[1].habits), duration, rng)
    liveliness = (manners[0].liveliness, manners[1].liveliness)
    return Conversation(record(dialogue, rng), move(dialogue, manners, rng), dialogue.utterances, cast, liveliness)


def write_conversation(folder: Path, name: str, talk: Conversation) -> None:
    """The four files of DualTalk's layout and ``NAME.json`` with voices and utterances, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(2):
        stem = f"{name}_speaker{index + 1}"
        with atomic_path(folder / f"{stem}.wav") as path:
            soundfile.write(str(path), talk.audio[index], MODEL_RATE, "PCM_16", format="WAV")
        # Uncompressed, so that a reader can map it into memory.
        write_motion(folder / f"{stem}.npz", talk.motion[index], MOTION_RATE)
    about = {
        "voices": [asdict(voice) for voice in talk.cast],
        "liveliness": list(talk.liveliness),
        # Speakers are numbered from 1 in file names.
        "utterances": [{**asdict(u), "speaker": u.speaker + 1} for u in talk.utterances],
    }
    with atomic_path(folder / f"{name}.json") as path:
        path.write_text(json.dumps(about, indent=1) + "\n")


def _make_one(out: str, seed: int, seconds: tuple[float, float], number: int) -> None:
    split = split_of(number)
    write_conversation(
        Path(out) / split, conversation_name(number), make_conversation(seed, number, seconds, split == "ood")
    )


def conversation_name(number: int) -> str:
    """The name of a conversation's files."""
    return f"synth{number:06d}"


def make_folder(
    out: str | Path,
    conversations: int,
    seed: int,
    seconds: tuple[float, float] = (20.0, 60.0),
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Make a data set, or complete or extend one of the same seed and lengths; returns the number of new conversations.

    :param progress: called with (done, total) after each conversation, existing ones included.
    :raises UserError: the folder holds a different set or cannot be written, or a speech engine is missing.
    """
    out = Path(out)
    if conversations < 1 or not 5 <= seconds[0] <= seconds[1]:
        raise UserError(f"{conversations} conversations of {seconds[0]}-{seconds[1]} s: at least 1, of 5 s or more")
    require_engines()
    settings = {"format": FORMAT, "seed": seed, "seconds": list(seconds)}
    manifest = out / MANIFEST
    try:
        out.mkdir(parents=True, exist_ok=True)
        if manifest.exists():
            found = json.loads(manifest.read_text())
            if found != settings:
                raise UserError(f"{manifest}: this set was made with {found}, not {settings}; choose another folder")
        elif any(out.iterdir()):
            raise UserError(f"{out}: not empty and no synthetic set; choose a new folder")
        else:
            with atomic_path(manifest) as path:
                path.write_text(json.dumps(settings) + "\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{out}: cannot be used ({error})") from error
    missing = [n for n in range(conversations) if not (out / split_of(n) / f"{conversation_name(n)}.json").exists()]
    done = conversations - len(missing)
    if progress is not None:
        progress(done, conversations)
    run_all(
        partial(_make_one, str(out), seed, seconds),
        missing,
        jobs,
        None if progress is None else lambda count, _: progress(done + count, conversations),
    )
    return len(missing)
