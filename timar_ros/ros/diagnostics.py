"""A node's counters, rates and latencies, as rows for ``/diagnostics``."""

from __future__ import annotations

import threading
from collections import Counter, deque

import numpy as np

WINDOW = 1000
"""Number of latencies kept for the percentiles, to limit memory; the maximum covers all latencies since configure."""


class Statistics:
    """Counters, rates and latencies; any thread may call every method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._last_grown: Counter[str] = Counter()
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
        """Growth of a counter since the last call with its name."""
        with self._lock:
            grown = self._counts[what] - self._last_grown[what]
            self._last_grown[what] = self._counts[what]
            return grown

    def tick(self, what: str) -> None:
        """Count an event whose rate is reported, too."""
        with self._lock:
            self._ticks[what] += 1
            self._counts[what] += 1

    def latency(self, what: str, seconds: float) -> None:
        """Add a measured latency."""
        with self._lock:
            self._latencies.setdefault(what, deque(maxlen=WINDOW)).append(seconds)
            self._maxima[what] = max(seconds, self._maxima.get(what, seconds))

    def rows(self, now: float) -> dict[str, str]:
        """All counters, rates and latencies as key and value; rates are over the time since the last call.

        :param now: a steady clock's time [s].
        """
        with self._lock:
            rows = {what: str(number) for what, number in self._counts.items()}
            passed = now - self._reported
            if self._reported and passed > 0:
                for what, number in self._ticks.items():
                    rows[f"{what} rate [Hz]"] = f"{number / passed:.2f}"
            self._reported = now
            # Reset to 0, so that a stopped stream still shows 0 Hz.
            self._ticks = Counter(dict.fromkeys(self._ticks, 0))
            for what, values in self._latencies.items():
                p50, p95 = np.percentile(np.asarray(values), (50, 95)) * 1e3
                rows[f"{what} p50 [ms]"] = f"{p50:.2f}"
                rows[f"{what} p95 [ms]"] = f"{p95:.2f}"
                rows[f"{what} max [ms]"] = f"{self._maxima[what] * 1e3:.2f}"
        return rows
