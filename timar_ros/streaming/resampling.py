"""Resampling whose result does not depend on how the input was cut: windows of audio, and FLAME frames.

Audio is resampled a window at a time, with enough context on both sides that the result equals the whole recording's.
soxr's own streaming object gives the same samples, but holds them back by up to 40 ms (48 kHz) where the filter needs
6 ms, and cannot be started in the middle of a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, gcd

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.motion import EXPRESSION, MODEL_RATE, MOTION_SIZE, PARTS

# Half the length of soxr's "HQ" filter, in samples of the slower of the two rates (measured: beyond it the result
# does not change).
FILTER_HALF = 128


def audio_context(rate: int, target: int = MODEL_RATE) -> int:
    """Input samples that the resampler needs on each side of a window; 0 where nothing is to be resampled."""
    return 0 if rate == target else ceil(FILTER_HALF * rate / min(rate, target))


def resample_window(
    read: Callable[[int, int], NDArray[np.float32]], rate: int, first: int, count: int, target: int = MODEL_RATE
) -> NDArray[np.float32]:
    """Samples ``first`` … ``first + count - 1`` of a recording resampled to ``target``, read through ``read``.

    :param read: gives input samples [a, b) of the recording, zeros outside of it; called once.
    :param rate: the recording's rate [Hz].
    :param first: index of the first output sample; output sample k lies at time k / target from the recording's start.
    """
    if rate == target:
        return read(first, first + count)
    context = audio_context(rate, target)
    # Input and output grids meet every `period` input samples; a window that starts there needs no fraction.
    period = rate // gcd(rate, target)
    start = (first * rate // target - context) // period * period
    end = -(-(first + count) * rate // target) + context
    resampled = soxr.resample(read(start, end), rate, target, quality="HQ")
    skip = first - start * target // rate
    window = resampled[skip : skip + count]
    if len(window) < count:
        window = np.pad(window, (0, count - len(window)))
    return np.ascontiguousarray(window, dtype=np.float32)


def resample_frames(
    times: NDArray[np.int64], frames: NDArray[np.float32], wanted: NDArray[np.int64], max_gap: int, hold: int
) -> NDArray[np.float32]:
    """FLAME frames at other times: expression linearly, jaw and head pose along the shortest arc.

    Each of the three parts is interpolated by itself, between the nearest frames that have it.

    :param times: strictly increasing times of the frames [ns], shape [n].
    :param frames: frames [n, 56] in TIMAR order; NaN where not tracked.
    :param wanted: times of the result [ns], shape [m].
    :param max_gap: frames further apart than this [ns] are not joined: between them the part is not tracked.
    :param hold: how long [ns] the first and last known value are held before the first and after the last frame.
    :returns: frames [m, 56]; NaN where not tracked.
    """
    frames_out = np.full((len(wanted), MOTION_SIZE), np.nan, dtype=np.float32)
    for part in PARTS.values():
        known = np.isfinite(frames[:, part]).all(axis=1)
        if known.any():
            frames_out[:, part] = _resample_part(
                times[known], frames[known, part], wanted, max_gap, hold, rotation=part is not EXPRESSION
            )
    return frames_out


def _resample_part(
    times: NDArray[np.int64],
    values: NDArray[np.float32],
    wanted: NDArray[np.int64],
    max_gap: int,
    hold: int,
    rotation: bool,
) -> NDArray[np.float32]:
    before = np.searchsorted(times, wanted, side="right") - 1
    left = np.clip(before, 0, len(times) - 1)
    right = np.clip(before + 1, 0, len(times) - 1)
    exact = times[left] == wanted
    inside = (before >= 0) & (before + 1 < len(times))
    joined = inside & (times[right] - times[left] <= max_gap)
    held = ~inside & (np.minimum(abs(wanted - times[left]), abs(wanted - times[right])) <= hold)
    # The frames at the edges of a gap too wide to join are held for `hold`, as at the end of a recording.
    edge = inside & ~joined & (wanted - times[left] <= hold)
    values_out = np.full((len(wanted), values.shape[1]), np.nan, dtype=np.float32)
    values_out[edge] = values[left[edge]]
    values_out[held] = values[np.where(before < 0, right, left)[held]]
    between = joined & ~exact
    if between.any():
        a, b = values[left[between]].astype(float), values[right[between]].astype(float)
        span = (times[right[between]] - times[left[between]]).astype(float)
        weight = ((wanted[between] - times[left[between]]) / span)[:, None]
        values_out[between] = _arc(a, b, weight) if rotation else a + weight * (b - a)
    values_out[exact] = values[left[exact]]
    return values_out


def _arc(a: NDArray[np.float64], b: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points on the shortest arcs between rotations a and b (axis-angle [n, 3]) at weights [n, 1]."""
    first = Rotation.from_rotvec(a)
    step = (first.inv() * Rotation.from_rotvec(b)).as_rotvec()
    arc: NDArray[np.float64] = (first * Rotation.from_rotvec(weight * step)).as_rotvec()
    return arc
