"""Estimates the times of a device's samples on the host's clock, from readings with jitter."""

from __future__ import annotations

import math


class SampleClock:
    """A delay-locked loop that smooths the reported times of blocks of samples.

    A sound card counts samples evenly on its own crystal, while the host gets them late and unevenly. The loop follows
    both the offset and the true sample rate, so that its sample times are free of scheduling jitter and of drift. (A
    second-order loop as in F. Adriaensen, "Using a DLL to filter time", LAC 2005.)

    :param rate: the nominal sample rate [Hz].
    :param bandwidth: the loop's bandwidth [Hz]; a lower one is smoother and slower.
    :param reset_after: a reading that is further than this from the prediction [s] resets the loop.
    :param settle_within: a device that has just started reports wrong times for a while: until fifteen readings in a
        row lie this close to the prediction [s] (or two seconds have passed), every other reading resets the loop.
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
        self._seconds = 0.0
        self.resets = -1  # the first reading counts up to 0: it is a start, not a reset
        self._period = 1e9 / self.nominal_rate
        self._index = 0
        self._time = 0.0
        self._age = 0.0
        self._running = False

    @property
    def rate(self) -> float:
        """The estimated true sample rate of the device on the host's clock [Hz]."""
        return 1e9 / self._period

    def update(self, index: int, time_ns: int) -> int:
        """Add a reading: sample ``index`` at ``time_ns``; returns the sample's filtered time [ns]."""
        count = index - self._index
        error = time_ns - self.time_of(index)
        if not self.settled and self._running and count > 0:
            self._seconds += count / self.nominal_rate
            self._steady = self._steady + 1 if abs(error) < self.settle_within * 1e9 else 0
            self.settled = self._steady >= 15 or self._seconds >= 2.0
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
        # A new loop follows every reading; later the loop averages over 1/bandwidth seconds.
        bandwidth = max(self.bandwidth, 0.5 / self._age)
        omega = min(2 * math.pi * bandwidth * seconds, 0.5)
        self._time = self.time_of(index) + math.sqrt(2) * omega * error
        if self._age > 1.0:  # before that, an error of the first reading would look like a wrong rate
            self._period += omega * omega * error / count
            limit = 1e9 / self.nominal_rate
            self._period = min(max(self._period, 0.99 * limit), 1.01 * limit)  # no crystal is 1 % off
        self._index = index
        return round(self._time)

    def time_of(self, index: float) -> float:
        """The host's time of a sample [ns], extrapolated from the last update."""
        return self._time + (index - self._index) * self._period

    def index_at(self, time_ns: float) -> float:
        """The (fractional) sample index at ``time_ns``."""
        return self._index + (time_ns - self._time) / self._period
