"""Find every fault of a data set in DualTalk's layout before a training or an evaluation fails on it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from timar_ros.data.dualtalk_folder import (
    MAX_FRAME_DIFFERENCE,
    SPLITS,
    Pair,
    array_names,
    find_pairs,
    map_array,
)
from timar_ros.data.motion_files import LARGEST_ANGLE
from timar_ros.errors import UserError
from timar_ros.files.reading import READ_ERRORS, placeholder, plain, scalar
from timar_ros.motion import MODEL_RATE, MOTION_RATE, SAMPLES_PER_FRAME

# Twice the plausible range of tracked faces (model-side limits are tighter): beyond it a tracker has failed, or the
# columns are wrong. Lowest and highest.
EXPRESSION_RANGE = (-6.0, 6.0)
HEAD_RANGE = ((-1.0, 1.4), (-2.4, 2.4), (-1.4, 1.4))
JAW_RANGE = ((-0.1, 1.2), (-0.2, 0.2), (-0.2, 0.2))
# A channel whose loudest 40 ms stay under this is silent (RMS, full scale 1: -60 dB).
SILENT = 1e-3


@dataclass(frozen=True)
class Fault:
    """One fault of one file."""

    split: str
    pair: str
    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass
class Report:
    """The results of a check. ``conversations`` and ``seconds`` per split count the whole pairs."""

    faults: list[Fault] = field(default_factory=list)
    conversations: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def broken(self, split: str | None) -> frozenset[str]:
        """Names of a split's faulty conversations, for DualTalkFolder's ``skip``."""
        return frozenset(f.pair for f in self.faults if f.split == (split or ""))


def _check_audio(path: Path) -> tuple[int, list[str]]:
    """(samples, faults) of a WAV."""
    try:
        info = soundfile.info(str(path))
        loudest, finite, clipped, peak = 0.0, True, 0, 0.0
        for block in soundfile.blocks(str(path), blocksize=SAMPLES_PER_FRAME * 512, dtype="float32", always_2d=True):
            mono = block[: len(block) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME, 0].reshape(-1, SAMPLES_PER_FRAME)
            finite &= bool(np.isfinite(block).all())
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
            clipped += int((np.abs(block) >= 0.9999).sum())
            if len(mono):
                loudest = max(loudest, float(np.sqrt(np.square(mono).mean(axis=1)).max()))
    except READ_ERRORS as error:
        return 0, [f"not a readable audio file ({placeholder(path) or plain(error)})"]
    faults = []
    if info.samplerate != MODEL_RATE:
        faults.append(f"sample rate {info.samplerate} Hz instead of {MODEL_RATE} Hz")
    if info.channels != 1:
        faults.append(f"{info.channels} channels instead of 1")
    if not info.frames:
        faults.append("empty")
    elif not finite:
        faults.append("holds samples that are not finite")
    elif loudest < SILENT:
        faults.append(f"silent (the loudest 40 ms are at {20 * np.log10(max(loudest, 1e-10)):.0f} dB)")
    elif clipped > 0.01 * info.frames:
        faults.append(f"clipped ({100 * clipped / info.frames:.1f} % of the samples at full scale)")
    return round(info.frames * MODEL_RATE / info.samplerate), faults


def _out_of_range(name: str, values: NDArray[np.generic], low: float, high: float) -> list[str]:
    bad = np.flatnonzero((values < low) | (values > high))  # type: ignore[operator]
    if not len(bad):
        return []
    first = int(bad[0])
    where = f"in {len(bad)} of {len(values)} frames, first frame {first} ({float(values[first]):.3g})"
    return [f"{name} out of FLAME's range [{low:g}, {high:g}] {where}"]


def _check_motion(path: Path) -> tuple[int, list[str]]:
    """(frames, faults) of an npz."""
    try:
        exp, pose = map_array(path, "exp"), map_array(path, "pose")
    except UserError as error:
        return 0, [str(error).removeprefix(f"{path}: ")]
    if damage := damaged_member(path):
        return 0, [damage]
    if exp.ndim != 2 or exp.shape[1] != 50 or pose.ndim != 2 or pose.shape[1] != 6:
        return 0, [f"exp is {exp.shape} and pose {pose.shape} instead of [T,50] and [T,6]"]
    if exp.dtype.kind not in "fiu" or pose.dtype.kind not in "fiu":
        return 0, [f"exp is {exp.dtype} and pose {pose.dtype} instead of numbers"]
    frames, faults = min(len(exp), len(pose)), []
    if "clean_exp" in array_names(path):
        # A corrupted copy has intended gaps: check the original motion instead.
        exp, pose = map_array(path, "clean_exp"), map_array(path, "clean_pose")
    try:
        rate = scalar(map_array(path, "rate"), "rate") if "rate" in array_names(path) else MOTION_RATE
    except (UserError, ValueError) as error:
        return 0, [str(error).removeprefix(f"{path}: ")]
    if rate != MOTION_RATE:
        faults.append(f"frame rate {rate:g} instead of {MOTION_RATE:g}")
    if len(exp) != len(pose):
        faults.append(f"exp has {len(exp)} frames and pose {len(pose)}")
    if not frames:
        return 0, [*faults, "empty"]
    missing = ~(np.isfinite(exp[:frames]).all(axis=1) & np.isfinite(pose[:frames]).all(axis=1))
    if missing.any():
        faults.append(
            f"NaN or infinite in {missing.sum()} of {frames} frames, first frame {np.flatnonzero(missing)[0]}"
        )
    if missing.all():
        return frames, [*faults, "no frame is tracked"]
    degrees = int((np.linalg.norm(pose[:frames].reshape(frames, 2, 3), axis=-1) > LARGEST_ANGLE).any(axis=1).sum())
    if degrees:
        return frames, [*faults, f"rotations in degrees instead of rad in {degrees} of {frames} frames"]
    whole_exp, whole_pose = exp[:frames][~missing], pose[:frames][~missing]
    extreme = np.abs(whole_exp).max(axis=1, initial=0.0) if len(whole_exp) else np.zeros(0)
    faults += _out_of_range("expression", extreme, *EXPRESSION_RANGE)
    for start, name, ranges in ((0, "head", HEAD_RANGE), (3, "jaw", JAW_RANGE)):
        for axis, (low, high) in enumerate(ranges):
            faults += _out_of_range(f"{name} {'xyz'[axis]}", whole_pose[:, start + axis], low, high)
    if len(whole_exp) > 1 and not whole_exp.std(axis=0).any():
        faults.append("the face never moves")
    return frames, faults


def damaged_member(path: Path) -> str:
    """The first array of an npz with a wrong checksum, in words; "" if all are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except READ_ERRORS as error:
        return f"damaged ({plain(error)})"
    return "" if bad is None else f"damaged: the checksum of array {bad.removesuffix('.npy')} is wrong; get it again"


def check_pair(pair: Pair, split: str = "") -> tuple[float, list[Fault]]:
    """(seconds, faults) of one whole pair."""
    faults, lengths = [], {}
    for speaker in (1, 2):
        samples, audio_faults = _check_audio(pair.wav(speaker))
        frames, motion_faults = _check_motion(pair.npz(speaker))
        faults += [Fault(split, pair.name, pair.wav(speaker), what) for what in audio_faults]
        faults += [Fault(split, pair.name, pair.npz(speaker), what) for what in motion_faults]
        lengths[pair.wav(speaker)] = samples / SAMPLES_PER_FRAME
        lengths[pair.npz(speaker)] = float(frames)
    known = {path: length for path, length in lengths.items() if length}
    if known:
        shortest = min(known.values())
        # Compare all lengths with the shortest file, which limits the clips.
        for path, length in known.items():
            if length - shortest > MAX_FRAME_DIFFERENCE:
                other = min(known, key=lambda p: known[p]).name
                faults.append(
                    Fault(
                        split, pair.name, path, f"{length:.1f} frames long, {length - shortest:.1f} more than {other}"
                    )
                )
    return min(lengths.values()) / MOTION_RATE, faults


def check_folder(
    path: str | Path, splits: Sequence[str] | None = None, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Check a data set.

    :param splits: which splits; default: the existing ones, or without any the folder itself (split "").
    :param progress: called with (done, total) conversations.
    :raises UserError: no such folder, a named split does not exist, or there are no files of the layout.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    chosen = list(splits) if splits is not None else [s for s in SPLITS if (root / s).is_dir()] or [""]
    report, work = Report(), []
    for split in chosen:
        folder = root / split
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        pairs, missing = find_pairs(folder)
        for line in missing:
            # find_pairs names the conversation and its missing files.
            file, _, what = line.partition(": ")
            report.faults.append(Fault(split, Path(file).name, Path(file), what))
        report.conversations[split] = len(pairs)
        report.seconds[split] = 0.0
        work += [(split, pair) for pair in pairs]
    if not work and not report.faults:
        raise UserError(f"{root}: no X_speaker1/2 .wav/.npz in {', '.join(s or 'it' for s in chosen)}")
    for done, (split, pair) in enumerate(work, start=1):
        seconds, faults = check_pair(pair, split)
        report.seconds[split] += seconds
        report.faults += faults
        if progress is not None:
            progress(done, len(work))
    return report
