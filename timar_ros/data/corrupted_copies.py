"""Corrupted copies of conversations, to measure the effect of real rooms and trackers on an evaluation.

Only a model's inputs change: both speakers' speech and the user's motion; the agent's motion stays the truth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timar_ros.data.audio_files import write_audio
from timar_ros.data.disturbances import Corruption
from timar_ros.data.dualtalk_folder import (
    ROLES,
    SPLITS,
    DualTalkFolder,
    Item,
)
from timar_ros.data.motion_files import dualtalk_pose, write_motion
from timar_ros.errors import UserError
from timar_ros.files import atomic_path
from timar_ros.motion import EXPRESSION, MODEL_RATE, MOTION_RATE, SAMPLES_PER_FRAME

Array = NDArray[np.float32]

# Shortest and longest burst [s]: a door, a passing car, a hand before the camera.
BURST = (0.2, 1.5)
# Share of time with bursts of noise.
NOISE_SHARE = 0.3


def _bursts(length: int, rate: float, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A mask ``[length]`` that is on in bursts for about ``share`` of the time, exactly none or all for 0 or 1."""
    if share > 0.5:
        # Filling the last gaps at random would take too long: draw the pauses instead.
        return ~_bursts(length, rate, 1 - share, rng)
    mask = np.zeros(length, bool)
    wanted = round(share * length)
    # Bursts may overlap; the last ones are cut to reach the exact share.
    while (left := wanted - int(mask.sum())) > 0:
        start = int(rng.integers(0, length))
        free = np.flatnonzero(~mask[start : start + round(rng.uniform(*BURST) * rate)])[:left]
        mask[start + free] = True
    return mask


def _noisy(speech: Array, snr: float, rng: np.random.Generator) -> Array:
    level = float(np.sqrt(np.mean(np.square(speech)))) * 10 ** (-snr / 20)
    on = _bursts(len(speech), MODEL_RATE, NOISE_SHARE, rng)
    noise = rng.standard_normal(len(speech), dtype=np.float32) * np.float32(level)
    return np.where(on, speech + noise, speech)


def _cut(speech: Array, share: float, rng: np.random.Generator) -> Array:
    return np.where(_bursts(len(speech), MODEL_RATE, share, rng), np.float32(0), speech)


def _late(track: Array, steps: int, fill: float) -> Array:
    steps = min(steps, len(track))
    lead = np.full((steps, *track.shape[1:]), fill, np.float32)
    return np.concatenate([lead, track[: len(track) - steps]])


def corrupt(item: Item, corruption: Corruption, rng: np.random.Generator) -> Item:
    """A corrupted copy of a clip's inputs; shapes stay. Untracked frames are NaN in all 56 columns.

    :param rng: the same generator state gives the same copy.
    """
    corrupted = Item(**item)
    kind, strength = corruption.kind, corruption.strength
    motion = item["user_motion"]
    if kind == "noise":
        corrupted["user_speech"] = _noisy(item["user_speech"], strength, rng)
        corrupted["agent_speech"] = _noisy(item["agent_speech"], strength, rng)
    elif kind == "silence":
        corrupted["user_speech"] = _cut(item["user_speech"], strength, rng)
        corrupted["agent_speech"] = _cut(item["agent_speech"], strength, rng)
    elif kind in ("drop_motion", "hold_motion"):
        lost = _bursts(len(motion), MOTION_RATE, strength, rng)
        if kind == "drop_motion":
            corrupted["user_motion"] = np.where(lost[:, None], np.float32(np.nan), motion)
        else:
            last_good = np.maximum.accumulate(np.where(lost, 0, np.arange(len(motion))))
            corrupted["user_motion"] = motion[last_good]
    elif kind in ("gaussian", "laplace", "uniform"):
        # All three have unit deviation.
        draw = {
            "gaussian": lambda: rng.standard_normal(motion.shape),
            "laplace": lambda: rng.laplace(0, np.sqrt(0.5), motion.shape),
            "uniform": lambda: rng.uniform(-np.sqrt(3), np.sqrt(3), motion.shape),
        }[kind]()
        corrupted["user_motion"] = (motion + strength * np.nanstd(motion, axis=0) * draw).astype(np.float32)
    else:
        frames = round(strength * MOTION_RATE)
        corrupted["user_speech"] = _late(item["user_speech"], frames * SAMPLES_PER_FRAME, 0.0)
        corrupted["user_motion"] = _late(motion, frames, np.nan)
    return corrupted


def corrupt_folder(
    source: str | Path,
    out: str | Path,
    corruptions: Sequence[Corruption],
    seed: int = 0,
    splits: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a corrupted copy of a data set: two per conversation, so that each speaker is the user once.

    In the copy speaker 1 is the user and speaker 2 the agent (DualTalkFolder reads this from ``roles.json``); the
    user's npz keeps the original motion as ``clean_exp`` and ``clean_pose``, which metrics use as the partner's.

    :param corruptions: applied one after the other.
    :param splits: default: test and ood, if they exist.
    :returns: the number of conversations written.
    :raises UserError: nothing to copy, or ``out`` is not empty.
    """
    source, out = Path(source), Path(out)
    chosen = list(splits) if splits is not None else [s for s in ("test", "ood") if (source / s).is_dir()]
    if not corruptions or not chosen:
        raise UserError(f"{source}: nothing to do (no corruption, or neither test/ nor ood/ there: name a split)")
    if any(split not in SPLITS for split in chosen):
        raise UserError(f"splits {', '.join(chosen)}: only {', '.join(SPLITS)} are known")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty; choose a new folder")
    work = [
        (split, folder, clip)
        for split in chosen
        for folder in (DualTalkFolder(source, split, normalise=False),)
        for clip in folder.clips(None)
    ]
    for done, (split, folder, clip) in enumerate(work, start=1):
        # The noise depends on conversation and role alone, not on other copies.
        rng = np.random.default_rng([seed, *clip.name.encode()])
        clean = folder.load(clip)
        item = clean
        for corruption in corruptions:
            item = corrupt(item, corruption, rng)
        base = out / split / f"{clip.pair.name}-{clip.user}"
        write_audio(f"{base}_speaker1.wav", item["user_speech"])
        write_audio(f"{base}_speaker2.wav", item["agent_speech"])
        truth = clean["user_motion"]
        write_motion(
            f"{base}_speaker1.npz", item["user_motion"], clean_exp=truth[:, EXPRESSION], clean_pose=dualtalk_pose(truth)
        )
        write_motion(f"{base}_speaker2.npz", item["agent_motion"])
        with atomic_path(out / split / ROLES) as path:
            path.write_text(json.dumps({"agents": [2], "corruptions": [str(c) for c in corruptions], "seed": seed}))
        if progress is not None:
            progress(done, len(work))
    return len(work)
