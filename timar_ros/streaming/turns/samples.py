"""Samples of one stream, put in their places by index, whatever their order of arrival."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SampleBuffer:
    """A window over an endless run of samples: marks which samples have arrived, and drops those before `forget`.

    The first sample to arrive for an index stays; a second one is a duplicate.
    """

    def __init__(self) -> None:
        self._origin = 0  # index of the first cell
        self._data = np.zeros(0, dtype=np.float32)
        self._known = np.zeros(0, dtype=bool)
        self.begin: int | None = None  # smallest index ever written
        self.end = 0  # one past the largest index ever written

    def write(self, index: int, samples: NDArray[np.float32]) -> int:
        """Store samples from ``index`` on; returns how many of them were new."""
        if not len(samples):
            return 0
        self._make_room(index, index + len(samples))
        place = slice(index - self._origin, index - self._origin + len(samples))
        new = ~self._known[place]
        count = int(np.count_nonzero(new))
        if count == len(samples):
            self._data[place] = samples
        elif count:
            self._data[place][new] = samples[new]
        self._known[place] = True
        self.end = index + len(samples) if self.begin is None else max(self.end, index + len(samples))
        self.begin = index if self.begin is None else min(self.begin, index)
        return count

    def read(self, first: int, end: int) -> NDArray[np.float32]:
        """Samples first … end - 1; zeros where none has arrived."""
        piece = np.zeros(end - first, dtype=np.float32)
        a, b = max(first, self._origin), min(end, self._origin + len(self._data))
        if a < b:
            piece[a - first : b - first] = self._data[a - self._origin : b - self._origin]
        return piece

    def known(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the samples at these indices have arrived."""
        known = np.zeros(len(indices), dtype=bool)
        cells = indices - self._origin
        inside = (cells >= 0) & (cells < len(self._known))
        known[inside] = self._known[cells[inside]]
        return known

    def complete(self, first: int, end: int) -> bool:
        """Whether all samples first … end - 1 have arrived (and were not dropped)."""
        if end <= first:
            return True
        a, b = first - self._origin, end - self._origin
        return a >= 0 and b <= len(self._known) and bool(self._known[a:b].all())

    def forget(self, before: int) -> None:
        """Drop samples before an index and free their memory."""
        count = min(before - self._origin, len(self._data))
        if count > 0:
            self._data, self._known = self._data[count:].copy(), self._known[count:].copy()
            self._origin += count

    def cut(self, end: int) -> None:
        """Drop samples from an index on."""
        cells = max(0, min(end - self._origin, len(self._data)))
        self._data[cells:] = 0.0
        self._known[cells:] = False
        self.end = min(self.end, max(end, self.begin or 0))

    def _make_room(self, first: int, end: int) -> None:
        if not len(self._data):
            self._origin = first
        front = max(0, self._origin - first)
        back = max(0, end - self._origin - len(self._data))
        if front or back:
            # Grow by at least half, so that many small chunks cause few copies.
            spare = max(back, len(self._data) // 2) if back else 0
            self._data = np.pad(self._data, (front, spare))
            self._known = np.pad(self._known, (front, spare))
            self._origin -= front
