"""Augmentation that changes speech and motion together: the pace of a clip.

Augmentations of the sound alone (level, response, noise, room, band limits) are in
:mod:`timar_ros.training.audio_augmentation`, which works on batches.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from timar_ros.data.dualtalk_folder import Item
from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE, MOTION_RATE, SAMPLES_PER_FRAME
from timar_ros.streaming.resampling import resample_frames

Array = NDArray[np.float32]

# Beyond this pace, speech and gestures are no longer human.
SLOWEST, FASTEST = 0.75, 1.34


def change_speed(item: Item, frames: int) -> Item:
    """A clip played faster or slower so that it lasts ``frames`` frames: speech and motion together.

    Pitch and formants change with the pace, as on a tape, which also gives other voices. To get a clip of a fixed
    length at pace p, load ``round(frames * p)`` frames and pass ``frames`` here.

    :raises UserError: the pace would be outside 0.75 … 1.34.
    """
    before = len(item["agent_motion"])
    pace = before / frames
    if not SLOWEST <= pace <= FASTEST:
        raise UserError(f"a clip of {before} frames cannot become {frames}: a pace of {pace:.2f} is not human")
    return Item(
        user_speech=_stretch_speech(item["user_speech"], pace, frames),
        agent_speech=_stretch_speech(item["agent_speech"], pace, frames),
        user_motion=_stretch_motion(item["user_motion"], pace, frames),
        agent_motion=_stretch_motion(item["agent_motion"], pace, frames),
    )


def _stretch_speech(speech: Array, pace: float, frames: int) -> Array:
    rate = MODEL_RATE
    stretched = soxr.resample(speech, rate * pace, rate)
    out = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    out[: len(stretched)] = stretched[: len(out)]
    return out


def _stretch_motion(motion: Array, pace: float, frames: int) -> Array:
    step = round(1e9 / MOTION_RATE)
    times = np.arange(len(motion), dtype=np.int64) * step
    # A frame represents its middle, so stretch the middles.
    wanted = np.round(((np.arange(frames) + 0.5) * pace - 0.5) * step).astype(np.int64)
    return resample_frames(times, motion, np.clip(wanted, 0, times[-1]), max_gap=step, hold=step // 2)
