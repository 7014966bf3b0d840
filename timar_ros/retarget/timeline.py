"""The wanted joint positions over time: frames on a uniform grid of knots, and the rows in gaps without frames.

Before the first frame the start pose holds. A gap holds the last frame; after ``timeout`` it eases to neutral (or
idle motion); a stream that begins or resumes is faded in. All of this depends on the knot alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from timar_ros.retarget.retarget_options import RetargetOptions

Float = NDArray[np.float64]


LONGEST_GAP = 600.0
"""A gap without frames longer than this [s] is not filled; the frames after it begin the stream again."""


def smooth_step(x: Float) -> Float:
    """0 to 1 with velocity and acceleration 0 at both ends (minimum jerk), for x within 0 and 1; clipped beyond."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * x * (10 + x * (6 * x - 15)))


class Timeline:
    """Rows of C numbers at knots ``base_ns + index * period_ns``.

    :param rest: row to ease to when the stream is silent, shape [C].
    :param idle: amplitude of idle motion per column, shape [C]; zeros for none.
    """

    def __init__(self, rest: Float, idle: Float, options: RetargetOptions) -> None:
        self.period_ns = round(1e9 / options.knot_rate)
        self.knot_rate = 1e9 / self.period_ns
        self._rest, self._idle = rest, idle
        self._timeout = max(1, round(options.timeout * self.knot_rate))
        self._ease = max(1, round(options.ease * self.knot_rate))
        self._longest_gap = round(LONGEST_GAP * self.knot_rate)
        self._resume = max(0, round(options.resume * self.knot_rate))
        self.base_ns: int | None = None
        self._rows = np.empty((0, len(rest)))
        self._first = 0  # knot of _rows[0]
        self._before = rest.copy()  # the row before the first frame
        self._start_ns = 0
        self._last: tuple[float, Float] | None = None  # time [knots] and row of the last frame that arrived
        self.late = 0  # frames whose time had already passed

    @property
    def end_ns(self) -> int | None:
        """Time of the knot after the last frame; None before the first."""
        return None if self.base_ns is None else self.base_ns + (self._first + len(self._rows)) * self.period_ns

    def start_from(self, row: Float, stamp_ns: int) -> None:
        """Set the row before the first frame, and the time from which the stream is late."""
        self._before, self._start_ns = row.copy(), stamp_ns

    def push(self, stamp_ns: int, rate: float, rows: Float, now_ns: int | None) -> None:
        """Put frames into the timeline; from their first knot on they replace earlier rows.

        :param now_ns: time up to which output exists already: frames before it are too late.
        """
        if self.base_ns is None:
            self._before = self.rows(-(-stamp_ns // self.period_ns), 1)[0]
            self.base_ns = stamp_ns
        offset = (stamp_ns - self.base_ns) / self.period_ns
        step = self.knot_rate / rate
        times = offset + step * np.arange(len(rows))  # in knots
        first = round(offset)
        if abs(offset - first) < 0.02 and abs(step - 1) < 1e-3:
            placed = rows
        else:
            if self._last is not None and 0 < times[0] - self._last[0] <= 1.5 * step:
                times, rows = np.append(self._last[0], times), np.vstack([self._last[1], rows])
            first = int(np.ceil(times[0] - 1e-6))
            # A frame lasts until the next one, so the grid reaches the end of the last frame.
            knots = np.arange(first, int(np.ceil(times[-1] + step - 1e-6)))
            placed = np.stack([np.interp(knots, times, rows[:, c]) for c in range(rows.shape[1])], axis=1)
        self._last = (float(times[-1]), rows[-1])
        if now_ns is not None:
            passed = int((now_ns - self.base_ns) // self.period_ns) + 1 - first
            self.late += int(np.clip(passed, 0, len(placed)))
        if len(placed):
            self._place(first, placed)

    def _place(self, first: int, placed: Float) -> None:
        end = self._first + len(self._rows)
        if not len(self._rows):
            self._first = end = first
            before = self._before
            gap = self._resume
        elif first < self._first:
            placed = placed[self._first - first :]
            first, before, gap = self._first, self._before, 0
            if not len(placed):
                return
        else:
            gap = first - end
            before = self._row(np.array([first]))[0]
        if gap > 1 and self._resume:
            # Fade in from the existing rows, but no longer than the gap lasted.
            length = min(self._resume, gap)
            blend = smooth_step((np.arange(len(placed)) + 1) / (length + 1))[:, None]
            held = self._row(np.arange(first, first + len(placed))) if len(self._rows) else before
            placed = held + blend * (placed - held)
        if gap > self._longest_gap and len(self._rows):
            self._before = self._row(np.array([first - 1]))[0]
            self._rows, self._first = placed, first
        elif gap > 0 and len(self._rows):
            filler = self._row(np.arange(end, first))
            self._rows = np.concatenate([self._rows, filler, placed])
        else:
            self._rows = np.concatenate([self._rows[: first - self._first], placed])

    def _row(self, knots: NDArray[np.int64]) -> Float:
        """Rows at knots [N], extended before and after the frames."""
        index = knots - self._first
        if not len(self._rows):
            waited = (knots * self.period_ns + (self.base_ns or 0) - self._start_ns) / self.period_ns
            return self._silenced(np.tile(self._before, (len(knots), 1)), knots, waited - self._timeout)
        result = self._rows[np.clip(index, 0, len(self._rows) - 1)]
        result[index < 0] = self._before
        return self._silenced(result, knots, (index - (len(self._rows) - 1 + self._timeout)).astype(np.float64))

    def _silenced(self, rows: Float, knots: NDArray[np.int64], silent: Float) -> Float:
        """Rows [N, C], eased to rest or idling where the stream was silent too long; ``silent`` [N] is in knots."""
        if (silent <= 0).all():
            return rows
        blend = smooth_step(silent / self._ease)[:, None]
        return rows + blend * (self._rest + self._idle_motion(knots) - rows)

    def _idle_motion(self, knots: NDArray[np.int64]) -> Float:
        """Slow, never quite repeating sways, shape [N, C]: incommensurate sines of about 0.05 to 0.2 Hz."""
        seconds = (knots[:, None] * self.period_ns + (self.base_ns or 0)) * 1e-9
        column = np.arange(len(self._rest))
        slow = np.sin(2 * np.pi * (0.071 + 0.013 * column) * seconds + column)
        faster = 0.4 * np.sin(2 * np.pi * (0.187 + 0.017 * column) * seconds + 2 * column)
        return np.asarray(self._idle * (slow + faster) / 1.4)

    def rows(self, first: int, count: int) -> Float:
        """Rows at ``count`` knots from ``first`` on, shape [count, C]."""
        return self._row(np.arange(first, first + count))

    def forget(self, before: int) -> None:
        """Drop rows at knots before ``before``."""
        drop = min(before - self._first, len(self._rows) - 1)
        if drop > 0:
            self._before = self._rows[drop - 1].copy()
            self._rows = self._rows[drop:]
            self._first += drop
