"""Checks whether input can be placed in time. Messages come from anywhere; none may stop a conversation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.motion import EXPRESSION, MOTION_SIZE

MIN_RATE, MAX_RATE = 4000, 192000  # of audio [Hz]
MAX_CHANNELS = 64
LOUDEST = 16.0  # a float beyond this is an unscaled integer
LARGEST_STAMP = 1 << 62
MIN_MOTION_RATE, MAX_MOTION_RATE = 1.0, 1000.0  # [Hz]
MOST_FRAMES = 100_000
LARGEST_EXPRESSION, LARGEST_ROTATION = 100.0, 10.0  # far beyond any face


class RejectedError(Exception):
    """The input cannot be used; the message is one of few fixed reasons, since they are counted."""


def check_count(value: Any, name: str, lowest: int = 0, highest: int = LARGEST_STAMP) -> int:
    """A whole number in a range, of whatever numeric type."""
    try:
        number = int(value)
        whole = number == value
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or isinstance(value, (str, bytes)):
        raise RejectedError(f"{name} is not a whole number")
    if not lowest <= number <= highest:
        raise RejectedError(
            f"{name} outside {lowest} to {highest}" if highest != LARGEST_STAMP else f"{name} out of range"
        )
    return number


def check_samples(samples: Any) -> NDArray[np.float32]:
    """Audio of any shape [n] or [n, channels], float or integer PCM, as float32."""
    array = _numbers(samples, "samples")
    if array.ndim not in (1, 2):
        raise RejectedError("samples are neither [n] nor [n, channels]")
    if array.ndim == 2 and not 1 <= array.shape[1] <= MAX_CHANNELS:
        raise RejectedError(f"channels outside 1 to {MAX_CHANNELS}")
    if array.dtype.kind == "f":
        floats = array.astype(np.float32, copy=False)
    elif array.dtype in (np.int16, np.int32):
        floats = (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    else:
        raise RejectedError("samples are neither floats nor 16- or 32-bit integers")
    if not np.isfinite(floats).all():
        raise RejectedError("samples are not finite")
    if floats.size and float(np.abs(floats).max()) > LOUDEST:
        raise RejectedError("samples are not in [-1, 1]")
    return floats


def check_frames(frames: Any) -> tuple[NDArray[np.float32], bool]:
    """FLAME frames [n, 56]; parts with impossible values become "not tracked" (NaN), and the flag shows it."""
    array = _numbers(frames, "frames")
    if array.dtype.kind != "f":
        raise RejectedError("frames are not floats")
    if array.ndim != 2 or array.shape[1] != MOTION_SIZE:
        raise RejectedError(f"frames are not [n, {MOTION_SIZE}]")
    if not 1 <= len(array) <= MOST_FRAMES:
        raise RejectedError("no frames" if not len(array) else "too many frames at once")
    with np.errstate(over="ignore", invalid="ignore"):
        values = array.astype(np.float32)
        limits = np.full(MOTION_SIZE, LARGEST_ROTATION, dtype=np.float32)
        limits[EXPRESSION] = LARGEST_EXPRESSION
        absurd = np.abs(values) > limits
    values[absurd] = np.nan
    return values, bool(absurd.any())


def check_motion_rate(rate: Any) -> float:
    """Frames per second in the range that a tracker can have."""
    try:
        number = float(rate)
    except (TypeError, ValueError, OverflowError):
        raise RejectedError("motion rate is not a number") from None
    if not MIN_MOTION_RATE <= number <= MAX_MOTION_RATE:
        raise RejectedError(f"motion rate outside {MIN_MOTION_RATE:g} to {MAX_MOTION_RATE:g} Hz")
    return number


def _numbers(values: Any, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        raise RejectedError(f"{name} are not an array of numbers") from None
    if array.dtype.kind not in "fiu":
        raise RejectedError(f"{name} are not an array of numbers")
    return array
