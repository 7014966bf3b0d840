"""The user's tracked motion on the conversation's time line: frames of any rate, cut to turns of 25 Hz."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import overload

import numpy as np
from numpy.typing import NDArray

from timar_ros.streaming.resampling import resample_frames

# Times are taken to this [ns], so that rounding of stamps makes no difference.
GRAIN = 1000


class MotionTrack:
    """Frames by time, in order whatever their order of arrival."""

    def __init__(self, timeout: int, most: int) -> None:
        self._times: list[int] = []
        self._frames: list[NDArray[np.float32]] = []
        self._timeout = timeout
        self._most = most
        self._began: int | None = None  # time of the earliest frame that ever came
        self.interval = 0  # between frames, as the tracker says [ns]

    def add(self, time: int, frame: NDArray[np.float32]) -> bool:
        """Put a frame [56] in its place; False when it is there already."""
        time = _grain(time)
        at = bisect_left(self._times, time)
        if at < len(self._times) and self._times[at] == time:
            return False
        self._began = time if self._began is None else min(self._began, time)
        self._times.insert(at, time)
        self._frames.insert(at, frame)
        if len(self._times) > self._most:
            del self._times[0], self._frames[0]
        return True

    def ready(self, start: int, last: int) -> bool:
        """Whether frames for all times from start to last [ns] have come, or no tracker runs.

        A tracker that began after the start has no frames for before: in a recording that begins in the middle of a
        conversation nobody can wait for them.
        """
        if not self._times or self._times[-1] < start - self._timeout:
            return True
        start, last = _grain(start), _grain(last)
        if self._began is not None and self._began > start:
            start = self._began
        first = max(bisect_right(self._times, start) - 1, 0)
        end = bisect_left(self._times, last)
        if end == len(self._times) or self._times[first] > start:
            return False
        steps = np.diff(self._times[first : end + 1])
        return not len(steps) or bool(steps.max() <= 1.5 * self.interval + GRAIN)

    def render(self, wanted: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Frames [F, 56] at these times [ns], NaN where not tracked; None when nothing is."""
        if not self._times:
            return None
        a = max(bisect_left(self._times, int(wanted[0]) - self._timeout) - 1, 0)
        b = bisect_right(self._times, int(wanted[-1]) + self._timeout) + 1
        if not self._times[a:b]:
            return None
        frames = resample_frames(
            np.array(self._times[a:b], dtype=np.int64),
            np.stack(self._frames[a:b]),
            _grain(wanted),
            max_gap=self._timeout,
            hold=self._timeout,
        )
        return frames if np.isfinite(frames).any() else None

    def forget(self, before: int) -> None:
        """Let go of frames that no turn from a time [ns] on can need."""
        count = max(bisect_left(self._times, before - self._timeout) - 1, 0)
        del self._times[:count], self._frames[:count]


@overload
def _grain(time: int) -> int: ...
@overload
def _grain(time: NDArray[np.int64]) -> NDArray[np.int64]: ...
def _grain(time: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
    return (time + GRAIN // 2) // GRAIN * GRAIN
