"""The time of a device's samples on the host's clock, from jittery readings."""

from __future__ import annotations

import math


class SampleClock:
    """A delay-locked loop: smooths the times at which blocks of samples are reported.

    A sound card counts samples evenly on its own crystal, while the host learns of them late and unevenly. The loop
    follows both the offset and the true sample rate, so that the time it gives to a sample is free of scheduling jitter
    and of drift. (A second-order loop as in F. Adriaensen, "Using a DLL to filter time", LAC 2005.)

    :param rate: the nominal sample rate [Hz].
    :param bandwidth: the loop's bandwidth [Hz]; lower is smoother and slower to follow.
    :param reset_after: a reading that is further than this from the prediction [s] starts the loop anew.
    :param settle_within: a device that just woke reports nonsense for a while: until fifteen readings in a row lie this
        close to the prediction [s] (or two seconds went by), every other reading starts the loop anew.
    """

    def __init__(
        self, rate: float, *, bandwidth: float = 0.1, reset_after: float = 0.25, settle_within: float = 0.003
    ) -> None:
        self.nominal_rate = float(rate)
        self.bandwidth = bandwidth
        self.reset_after = reset_after
        self.settle_within = settle_within
        self.settled = False
        self._steady = 0
        self._heard = 0.0
        self.resets = -1  # the first reading is a start, not a reset
        self._period = 1e9 / self.nominal_rate
        self._index = 0
        self._time = 0.0
        self._age = 0.0
        self._running = False

    @property
    def rate(self) -> float:
        """The device's true sample rate on the host's clock, as far as known [Hz]."""
        return 1e9 / self._period

    def update(self, index: int, time_ns: int) -> int:
        """Tell the loop that sample ``index`` was seen at ``time_ns``; returns its filtered time [ns]."""
        count = index - self._index
        error = time_ns - self.time_of(index)
        if not self.settled and self._running and count > 0:
            self._heard += count / self.nominal_rate
            self._steady = self._steady + 1 if abs(error) < self.settle_within * 1e9 else 0
            self.settled = self._steady >= 15 or self._heard >= 2.0
        limit = self.reset_after if self.settled else self.settle_within
        if not self._running or count < 0 or abs(error) > limit * 1e9:
            self.resets += 1
            self._running = True
            self._index, self._time, self._age = index, float(time_ns), 0.0
            self._period = 1e9 / self.nominal_rate
            return time_ns
        if count == 0:
            return round(self._time)
        seconds = count / self.nominal_rate
        self._age += seconds
        # A young loop listens to every reading, an old one averages over 1/bandwidth seconds.
        bandwidth = max(self.bandwidth, 0.5 / self._age)
        omega = min(2 * math.pi * bandwidth * seconds, 0.5)
        self._time = self.time_of(index) + math.sqrt(2) * omega * error
        if self._age > 1.0:  # before that, an offset of the first reading would be taken for a wrong rate
            self._period += omega * omega * error / count
            limit = 1e9 / self.nominal_rate
            self._period = min(max(self._period, 0.99 * limit), 1.01 * limit)  # no crystal is 1 % off
        self._index = index
        return round(self._time)

    def time_of(self, index: float) -> float:
        """The host's time of a sample [ns], extrapolated from the last update."""
        return self._time + (index - self._index) * self._period

    def index_at(self, time_ns: float) -> float:
        """The (fractional) sample that is at ``time_ns``."""
        return self._index + (time_ns - self._time) / self._period
