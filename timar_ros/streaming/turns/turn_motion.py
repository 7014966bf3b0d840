"""The user's tracked motion on the conversation's time line: frames of any rate, cut to turns of 25 Hz."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import overload

import numpy as np
from numpy.typing import NDArray

from timar_ros.streaming.resampling import resample_frames

# Times are rounded to this [ns], so that rounded stamps make no difference.
GRAIN = 1000
# Two frames further apart than this many frame periods have a gap between them.
WIDEST = 1.5


class MotionTrack:
    """Frames by time, in order whatever their order of arrival."""

    def __init__(self, timeout: int, most: int) -> None:
        self._times: list[int] = []
        self._frames: list[NDArray[np.float32]] = []
        self._timeout = timeout
        self._most = most
        self._began: int | None = None  # time of the earliest frame that ever arrived
        self._settled: int | None = None  # no frame from before this time is expected [ns]
        self.interval = 0  # between frames, by the tracker's rate [ns]

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

    def settle(self, time: int) -> None:
        """No frame from before this time [ns] is to be expected any more."""
        time = _grain(time)
        self._settled = time if self._settled is None else max(self._settled, time)

    def ready(self, start: int, last: int, end: int) -> bool:
        """Whether no further frame can change a turn [start, end), or no tracker runs.

        A tracker that began after the start has no earlier frames: in a recording that begins in the middle of a
        conversation they never arrive. Frames that are missing between others are waited for until they are settled.

        :param last: time of the turn's last frame [ns].
        """
        if not self._times or self._times[-1] < start - self._timeout:
            return True
        start, last, end = _grain(start), _grain(last), _grain(end)
        if self._began is not None and self._began > start:
            start = self._began
        first = max(bisect_right(self._times, start) - 1, 0)
        known = self._times[first : bisect_left(self._times, last) + 1]
        gaps = np.flatnonzero(np.diff(known) > self._widest())
        # The frames around the last place at which one may be missing.
        after: int | None
        if known[-1] < last:
            before, after = known[-1], None
        elif len(gaps):
            before, after = known[gaps[-1]], known[gaps[-1] + 1]
        elif known[0] > start:
            before, after = start, known[0]
        else:
            return True
        if self._settled is None:
            return False
        # After a gap, no frame beyond this is used: see `render`.
        horizon = max(end, before + self._widest())
        return self._settled > horizon or (after is not None and self._settled >= after)

    def render(self, wanted: NDArray[np.int64], end: int) -> NDArray[np.float32] | None:
        """Frames [F, 56] at these times [ns], NaN where not tracked; None when nothing is tracked.

        Of the frames after the last of these times only those count that have come whenever a turn is closed: the next
        one, and after a gap only if it lies before the turn's ``end`` [ns].
        """
        if not self._times:
            return None
        a = max(bisect_left(self._times, int(wanted[0]) - self._timeout) - 1, 0)
        b = bisect_left(self._times, _grain(int(wanted[-1])))
        if b < len(self._times):
            close = b > 0 and self._times[b] - self._times[b - 1] <= self._widest()
            b += close or self._times[b] <= _grain(end)
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

    def _widest(self) -> int:
        """The widest step between two frames [ns] without a frame missing."""
        return round(WIDEST * self.interval) + GRAIN

    def forget(self, before: int) -> None:
        """Drop frames that no turn from a time [ns] on can need."""
        count = max(bisect_left(self._times, before - self._timeout) - 1, 0)
        del self._times[:count], self._frames[:count]


@overload
def _grain(time: int) -> int: ...
@overload
def _grain(time: NDArray[np.int64]) -> NDArray[np.int64]: ...
def _grain(time: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
    return (time + GRAIN // 2) // GRAIN * GRAIN
