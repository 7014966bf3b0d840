"""What a node counts and measures of itself, as rows for ``/diagnostics``."""

from __future__ import annotations

import threading
from collections import Counter, deque

import numpy as np

WINDOW = 1000
"""Latencies kept for the percentiles: a bound on memory; the maximum is over everything since configure."""


class Statistics:
    """Counters, rates and latencies; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._ticks: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}
        self._maxima: dict[str, float] = {}
        self._reported = 0.0

    def count(self, what: str, number: int = 1) -> None:
        """Add to a counter, such as ``"turns dropped"``; a number of 0 makes the row appear."""
        with self._lock:
            self._counts[what] += number

    def counted(self, what: str) -> int:
        """A counter's value."""
        with self._lock:
            return self._counts[what]

    def grown(self, what: str) -> int:
        """By how much a counter has grown since this was last asked for it."""
        with self._lock:
            grown = self._counts[what] - self._asked[what]
            self._asked[what] = self._counts[what]
            return grown

    def tick(self, what: str) -> None:
        """One more of something whose rate is of interest; also counted."""
        with self._lock:
            self._ticks[what] += 1
            self._counts[what] += 1

    def latency(self, what: str, seconds: float) -> None:
        """One measured latency."""
        with self._lock:
            self._latencies.setdefault(what, deque(maxlen=WINDOW)).append(seconds)
            self._maxima[what] = max(seconds, self._maxima.get(what, seconds))

    def rows(self, now: float) -> dict[str, str]:
        """Everything as key and value, rates over the time since the last call.

        :param now: a steady clock's time [s].
        """
        with self._lock:
            made = {what: str(number) for what, number in self._counts.items()}
            passed = now - self._reported
            if self._reported and passed > 0:
                for what, number in self._ticks.items():
                    made[f"{what} rate [Hz]"] = f"{number / passed:.2f}"
            self._reported = now
            # Kept at zero, so that a stream that stopped shows 0 Hz instead of vanishing.
            self._ticks = Counter(dict.fromkeys(self._ticks, 0))
            for what, values in self._latencies.items():
                p50, p95 = np.percentile(np.asarray(values), (50, 95)) * 1e3
                made[f"{what} p50 [ms]"] = f"{p50:.2f}"
                made[f"{what} p95 [ms]"] = f"{p95:.2f}"
                made[f"{what} max [ms]"] = f"{self._maxima[what] * 1e3:.2f}"
        return made
