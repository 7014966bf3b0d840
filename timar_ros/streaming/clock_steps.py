"""Detection of clock steps in stamps: the one place that tells a step from jitter and from a pause.

Clocks step: NTP sets them back by seconds, a machine without a battery starts in 1970, a simulator starts again. Two
references predict a stamp: the end of the stream's previous message, and the clock of arrival. The stamps' clock has
stepped only if a stamp differs from both references in the same direction. After a pause the stamp agrees with the
clock of arrival; after a transport delay it agrees with the stream's count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NS = 1_000_000_000
LARGEST_STAMP = 1 << 62
"""Stamps beyond this are no times [ns]: the year 2116."""
BACKWARD_STEP = NS
"""Stamps that go back by more than this [ns] are a step: a stream's speech never goes back in time."""
FORWARD_STEP = 10 * NS
"""Stamps that go ahead by more than this [ns] are a step; less can be a pause or speech ahead of its time."""
COUNT_STEP = NS // 4
"""Where samples are counted without a gap, stamps that leave the count by more than this [ns] are a step."""
MOST_AHEAD = 120 * NS
"""Speech of a new utterance may be at most this far ahead of its time [ns]."""
CONFIRM = 3
"""Number of consistent messages in a row that make a step; fewer are stray stamps."""

Verdict = Literal["ok", "stray", "step"]


def near(stamp_ns: int, reference_ns: int, seconds: float = MOST_AHEAD / NS) -> bool:
    """Whether two times lie within ``seconds`` of each other: close enough to allocate memory or to wait for."""
    return abs(stamp_ns) <= LARGEST_STAMP and abs(stamp_ns - reference_ns) <= round(seconds * NS)


def is_step(
    by_count: int | None, by_arrival: int | None, *, counted: bool = False, forward: int = FORWARD_STEP
) -> bool:
    """Whether a stamp shows a step of its clock.

    :param by_count: time from the end of the stream's previous message to the stamp [ns]; None: no previous message.
    :param by_arrival: time from the clock of arrival's prediction to the stamp [ns]; None: no such clock.
    :param counted: the stream counts its samples and none is missing.
    :param forward: a smaller difference [ns] ahead can be a pause.
    """
    known = [difference for difference in (by_count, by_arrival) if difference is not None]
    if not known or (min(known) < 0) != (max(known) < 0):
        return False
    least = min(abs(difference) for difference in known)
    if counted:
        return least > COUNT_STEP
    return least > (BACKWARD_STEP if known[0] < 0 else forward)


@dataclass(frozen=True)
class Placed:
    """A stamp's place on a time axis without steps [ns], and whether the stamp was accepted."""

    time_ns: int
    verdict: Verdict
    step_ns: int = 0
    """With the verdict "step": size of the clock step [ns]."""


class ClockSteps:
    """Removes clock steps from one stream's stamps.

    Call ``place`` for every message in order of arrival. A stamp that shows a step is "stray" at first and placed where
    the stream's count and the clock of arrival expect it. The third such stamp in a row is a "step", and later stamps
    are "ok" again, by the clock's new time. Live nodes refuse stray stamps.

    :param confirm: messages that make a step. 1: a step is accepted at once, for a clock without stray stamps.
    :param forward: a smaller difference [ns] ahead can be a pause.
    """

    def __init__(self, confirm: int = CONFIRM, forward: int = FORWARD_STEP) -> None:
        self.shift_ns = 0
        """Stamp minus time without steps [ns]: the sum of the steps."""
        self.steps = 0
        self.strays = 0
        self._confirm, self._forward = confirm, forward
        self._end: int | None = None
        self._offset: int | None = None
        self._pending = 0
        self._pending_by = 0

    def place(
        self, stamp_ns: int, length_ns: int = 0, arrived_ns: int | None = None, *, counted: bool = False
    ) -> Placed:
        """Take the next message.

        :param length_ns: how long the message's contents last.
        :param arrived_ns: time of arrival by another clock, without that clock's steps (None: not known).
        :param counted: the message follows the previous one without a gap.
        """
        time = stamp_ns - self.shift_ns
        by_count = None if self._end is None else time - self._end
        by_arrival = None if arrived_ns is None or self._offset is None else time - arrived_ns - self._offset
        steps = is_step(by_count, by_arrival, counted=counted, forward=self._forward)
        if self._end is None or (abs(stamp_ns) <= LARGEST_STAMP and not steps):
            self._pending = 0
            return self._take(time, length_ns, arrived_ns, "ok")
        # A count of samples is exact; for other messages the time of arrival is the best prediction.
        by = time - self._end if counted or by_arrival is None else by_arrival
        same = self._pending and abs(by - self._pending_by) <= max(COUNT_STEP, length_ns)
        self._pending, self._pending_by = (self._pending + 1 if same else 1), by
        if self._pending < self._confirm or abs(stamp_ns) > LARGEST_STAMP:
            self.strays += 1
            return self._take(time - by, length_ns, arrived_ns, "stray")
        self._pending = 0
        self.steps += 1
        self.shift_ns += by
        return self._take(time - by, length_ns, arrived_ns, "step", by)

    def due(self, arrived_ns: int) -> int | None:
        """Stamp that the clock of arrival predicts for a message now [ns]; None before the first message."""
        return None if self._offset is None else arrived_ns + self._offset

    def begin(self, stamp_ns: int, length_ns: int = 0, arrived_ns: int | None = None) -> Placed:
        """Take a message that begins a new sequence; its stamp is accepted unchanged."""
        self._pending = 0
        return self._take(stamp_ns - self.shift_ns, length_ns, arrived_ns, "ok")

    def adopt(self, step_ns: int) -> None:
        """Apply a step that another stream of the same clock showed [ns]; later stamps follow the new time."""
        self.shift_ns += step_ns
        self._pending = 0

    def _take(self, time: int, length: int, arrived: int | None, verdict: Verdict, step: int = 0) -> Placed:
        self._end = time + length
        if arrived is not None:
            self._offset = time - arrived
        return Placed(time, verdict, step)


def spoken(step_ns: int) -> str:
    """A step in words: "5.0 s back", "3.2 years ahead"."""
    seconds = abs(step_ns) / NS
    for size, unit in ((365.25 * 86400, "years"), (86400.0, "days"), (3600.0, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit} {'ahead' if step_ns > 0 else 'back'}"
    return f"{seconds:.1f} s {'ahead' if step_ns > 0 else 'back'}"
