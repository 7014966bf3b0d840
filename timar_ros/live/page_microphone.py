"""Converts the page's microphone to audio chunks; stamps follow the sample count, since messages arrive unevenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLIP_NS = 150_000_000
"""A new stream begins when samples arrive this much before or after the time that the sample count predicts."""


@dataclass(frozen=True)
class Piece:
    """Samples [n] of one stream, the first at ``stamp_ns``."""

    stamp_ns: int
    stream_id: int
    index: int
    samples: NDArray[np.float32]


class PageMicrophone:
    """One microphone of one browser.

    :param rate: samples per second.
    :param stream_id: identity of its first stream.
    """

    def __init__(self, rate: int, stream_id: int) -> None:
        self.rate = rate
        self.stream_id = stream_id
        self.index = 0
        self._origin_ns: int | None = None

    def take(self, samples: NDArray[np.float32], now_ns: int) -> Piece:
        """Stamp samples that have just arrived; the last sample counts as recorded now."""
        first_sample_ns = now_ns - round(len(samples) / self.rate * 1e9)
        if self._origin_ns is None:
            self._origin_ns = first_sample_ns
        stamp = self._origin_ns + round(self.index / self.rate * 1e9)
        if abs(first_sample_ns - stamp) > SLIP_NS:
            self.stream_id, self.index, self._origin_ns, stamp = self.stream_id + 1, 0, first_sample_ns, first_sample_ns
        piece = Piece(stamp, self.stream_id, self.index, samples)
        self.index += len(samples)
        return piece
