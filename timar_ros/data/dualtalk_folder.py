"""The DualTalk folder layout: pairs of speakers as WAV and FLAME files, cut into clips lazily.

A folder holds ``train/``, ``test/`` and ``ood/``; each of them holds, for every conversation ``X``, the four files
``X_speaker1.wav``, ``X_speaker1.npz``, ``X_speaker2.wav`` and ``X_speaker2.npz``. A WAV is 16 kHz mono, an npz has
``exp [T,50]`` and ``pose [T,6]`` (``[:, :3]`` head pose, ``[:, 3:]`` jaw) at 25 frames a second (arXiv 2505.18096).

The reader caches nothing on disk: it memory-maps motion that the npz stores uncompressed, and seeks in audio.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import soundfile
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.files.reading import LARGEST_ARRAY, READ_ERRORS, placeholder, plain
from timar_ros.motion import MODEL_RATE, MOTION_RATE, SAMPLES_PER_FRAME

SPLITS = ("train", "test", "ood")
# File in a split's folder that says which speakers are agents.
ROLES = "roles.json"
# The two files of a speaker may differ by this much in the published set; clips use their common part.
MAX_FRAME_DIFFERENCE = 2

Array = NDArray[np.float32]


class Item(TypedDict):
    """One clip as arrays: speech ``[640·T]`` at 16 kHz, motion ``[T,56]`` in TIMAR order at 25 frames a second."""

    user_speech: Array
    agent_speech: Array
    user_motion: Array
    agent_motion: Array


@dataclass(frozen=True)
class Pair:
    """One conversation: two speakers, 1 and 2, each with a WAV and an npz."""

    folder: Path
    name: str

    def wav(self, speaker: int) -> Path:
        """Path of a speaker's audio."""
        return self.folder / f"{self.name}_speaker{speaker}.wav"

    def npz(self, speaker: int) -> Path:
        """Path of a speaker's motion."""
        return self.folder / f"{self.name}_speaker{speaker}.npz"


@dataclass(frozen=True)
class Clip:
    """A piece of a conversation with assigned roles, in motion frames from the file's start."""

    pair: Pair
    agent: int
    """The speaker (1 or 2) who is the agent; the other one is the user."""
    start: int
    frames: int

    @property
    def user(self) -> int:
        """The speaker (1 or 2) who is the user."""
        return 3 - self.agent

    @property
    def name(self) -> str:
        """A unique name within a split, fit for a file: ``X_speaker2_000200`` (agent, first frame)."""
        return f"{self.pair.name}_speaker{self.agent}_{self.start:06d}"


def find_pairs(folder: Path) -> tuple[list[Pair], list[str]]:
    """Conversations of a folder by name, and a line for every file that lacks its partner."""
    names = {
        path.name.rsplit("_speaker", 1)[0]
        for suffix in ("wav", "npz")
        for path in folder.glob(f"*_speaker[12].{suffix}")
    }
    pairs, faults = [], []
    for name in sorted(names):
        pair = Pair(folder, name)
        missing = [p.name for s in (1, 2) for p in (pair.wav(s), pair.npz(s)) if not p.is_file()]
        if missing:
            faults.append(f"{folder / name}: missing {', '.join(missing)}")
        else:
            pairs.append(pair)
    return pairs, faults


def array_names(path: Path) -> frozenset[str]:
    """Names of the arrays in an npz.

    :raises UserError: the file is no npz.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except READ_ERRORS as error:
        raise UserError(f"{path}: not a readable npz ({placeholder(path) or plain(error)})") from error


def map_array(path: Path, name: str) -> NDArray[np.generic]:
    """One array of an npz: memory-mapped when stored uncompressed, read otherwise.

    :raises UserError: the file is no npz, lacks the array, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read_header(member)
                header_bytes = member.tell()
            if math.prod(shape) * dtype.itemsize > min(LARGEST_ARRAY, info.file_size):
                raise ValueError(f"array {name} is said to be {shape}, more than the file holds")
            if info.compress_type != zipfile.ZIP_STORED or dtype.hasobject:
                with np.load(path, allow_pickle=False) as arrays:
                    return np.asarray(arrays[name])
            if 0 in shape:
                return np.zeros(shape, dtype)
            with path.open("rb") as raw:
                # The local header's name and extra fields may be longer than those of the central directory.
                raw.seek(info.header_offset + 26)
                lengths = raw.read(4)
            offset = (
                info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            )
            return np.memmap(path, dtype, "r", offset + header_bytes, shape, order="F" if fortran else "C")
    except KeyError as error:
        raise UserError(f"{path}: has no array '{name}' (DualTalk's npz hold exp and pose)") from error
    except READ_ERRORS as error:
        raise UserError(f"{path}: not a readable npz ({placeholder(path) or plain(error)})") from error


def load_motion(path: Path, start: int = 0, frames: int | None = None, prefix: str = "") -> Array:
    """Frames ``[start, start + frames)`` of an npz in TIMAR order, ``[T,56]``: expression, jaw, head pose.

    :param prefix: of the arrays' names (a corrupted copy keeps ``clean_exp`` and ``clean_pose``).
    """
    exp, pose = map_array(path, f"{prefix}exp"), map_array(path, f"{prefix}pose")
    if exp.ndim != 2 or exp.shape[1] != 50 or pose.ndim != 2 or pose.shape[1] != 6:
        raise UserError(f"{path}: exp is {exp.shape} and pose {pose.shape}; [T,50] and [T,6] are needed")
    stop = min(len(exp), len(pose)) if frames is None else start + frames
    return np.concatenate([exp[start:stop], pose[start:stop, 3:], pose[start:stop, :3]], axis=1, dtype=np.float32)


@lru_cache(maxsize=65536)
def _lengths(pair: Pair) -> tuple[int, int]:
    """(frames both speakers' files cover, audio samples of the shorter WAV)."""
    samples = []
    for speaker in (1, 2):
        try:
            info = soundfile.info(str(pair.wav(speaker)))
        except (RuntimeError, OSError) as error:
            raise UserError(f"{pair.wav(speaker)}: not a readable audio file ({error})") from error
        if info.samplerate != MODEL_RATE or info.channels != 1:
            raise UserError(
                f"{pair.wav(speaker)}: {info.samplerate} Hz with {info.channels} channel(s); "
                f"{MODEL_RATE} Hz mono is needed (timar data check lists all faults)"
            )
        samples.append(info.frames)
    frames = min(min(len(map_array(pair.npz(s), key)) for key in ("exp", "pose")) for s in (1, 2))
    return min(frames, -(-min(samples) // SAMPLES_PER_FRAME)), min(samples)


@lru_cache(maxsize=65536)
def _audio_statistics(path: Path) -> tuple[float, float]:
    """Mean and standard deviation of a whole file."""
    total = squares = 0.0
    count = 0
    for block in soundfile.blocks(str(path), blocksize=1 << 18, dtype="float64"):
        total += float(block.sum())
        squares += float(np.square(block).sum())
        count += len(block)
    mean = total / max(count, 1)
    return mean, float(np.sqrt(max(squares / max(count, 1) - mean * mean, 0.0)))


def load_speech(path: Path, start_frame: int, frames: int, normalise: bool) -> Array:
    """Audio under ``frames`` motion frames from ``start_frame``, ``[640·frames]``; zeros past the file's end."""
    try:
        samples, _ = soundfile.read(
            str(path), frames=frames * SAMPLES_PER_FRAME, start=start_frame * SAMPLES_PER_FRAME, dtype="float32"
        )
    except (RuntimeError, OSError) as error:
        raise UserError(f"{path}: not a readable audio file ({error})") from error
    if normalise:
        mean, deviation = _audio_statistics(path)
        # The same constant as transformers' Wav2Vec2 feature extractor, so that a silent file stays finite.
        samples = (samples - mean) / np.sqrt(deviation**2 + 1e-7)
    out = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    out[: len(samples)] = samples
    return out


def load_truth(path: Path, start: int = 0, frames: int | None = None) -> Array:
    """True frames ``[T,56]``: of a corrupted copy its clean motion, otherwise :func:`load_motion`."""
    return load_motion(path, start, frames, prefix="clean_" if "clean_exp" in array_names(path) else "")


class DualTalkFolder:
    """A split of a DualTalk-layout data set.

    :param path: the data set's folder (with ``train/`` …), or with ``split=None`` the folder of the files themselves.
    :param split: ``"train"``, ``"test"``, ``"ood"`` or None.
    :param normalise: return speech with zero mean and unit variance over the whole file (the model's ``clip``
        normalization); otherwise as recorded, in [-1, 1].
    :param skip: names of pairs to leave out (``timar_ros.data.data_check`` finds broken ones).
    :raises UserError: no such folder, or nothing in it.
    """

    def __init__(
        self, path: str | Path, split: str | None = "train", normalise: bool = True, skip: frozenset[str] = frozenset()
    ) -> None:
        folder = Path(path) if split is None else Path(path) / split
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder (a data set has {', '.join(SPLITS)}; timar synth makes one)")
        pairs, self.faults = find_pairs(folder)
        self.pairs = [pair for pair in pairs if pair.name not in skip]
        self.normalise = normalise
        # A corrupted copy names the agent; elsewhere each speaker is the agent in turn.
        marker = folder / ROLES
        self.roles: tuple[int, ...] = tuple(json.loads(marker.read_text())["agents"]) if marker.is_file() else (1, 2)
        if not self.pairs:
            raise UserError(f"{folder}: no complete pair X_speaker1/2 .wav/.npz; timar data check {path} lists faults")

    def clips(
        self, seconds: float | None = 8.0, hop: float | None = None, roles: tuple[int, ...] | None = None
    ) -> list[Clip]:
        """All clips in a fixed order: by name, then agent's role, then time.

        :param seconds: length of a clip (whole motion frames); None: each whole file, one clip per role.
        :param hop: time between the starts of two clips of a file; default ``seconds``, so that none overlap.
        :param roles: which speakers become the agent; default both, or the named agent of a corrupted copy.
        """
        frames = None if seconds is None else round(seconds * MOTION_RATE)
        step = None if seconds is None else max(1, round((hop or seconds) * MOTION_RATE))
        agents = self.roles if roles is None else roles
        clips = []
        for pair in self.pairs:
            available, samples = _lengths(pair)
            if frames is None or step is None:
                clips += [Clip(pair, agent, 0, available) for agent in agents if available]
                continue
            whole = min(available, samples // SAMPLES_PER_FRAME)
            clips += [Clip(pair, a, start, frames) for a in agents for start in range(0, whole - frames + 1, step)]
        return clips

    def load(self, clip: Clip) -> Item:
        """The arrays of a clip. Reads only the clip's part of the files; safe to call from several processes."""
        pair = clip.pair
        return Item(
            user_speech=load_speech(pair.wav(clip.user), clip.start, clip.frames, self.normalise),
            agent_speech=load_speech(pair.wav(clip.agent), clip.start, clip.frames, self.normalise),
            user_motion=load_motion(pair.npz(clip.user), clip.start, clip.frames),
            agent_motion=load_motion(pair.npz(clip.agent), clip.start, clip.frames),
        )

    def items(self, seconds: float | None = 8.0) -> Iterator[tuple[Clip, Item]]:
        """Every clip with its arrays, loaded one by one."""
        for clip in self.clips(seconds):
            yield clip, self.load(clip)
