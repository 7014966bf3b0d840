"""Foreign audio messages as one counted, evenly stamped stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timar_ros.data.foreign_audio import PcmFormat, Samples, decode, describe
from timar_ros.live.timing import SampleClock

LEAP_SECONDS = 0.1
"""A stamp further than this from where the count of samples says it must be means that samples were lost."""


@dataclass(frozen=True)
class Piece:
    """Samples [n, channels] of a stream: what an AudioChunk carries."""

    stamp_ns: int
    stream_id: int
    sample_index: int
    rate: int
    samples: Samples


class AudioIntake:
    """Gives foreign audio the sample index and the even stamps that it lacks.

    A message without a stamp is stamped with the time of its reception; ``unstamped`` counts them. A stamp that leaps
    ahead is all that shows a loss: the index leaps with it, and ``lost_samples`` counts.
    """

    def __init__(self, fallback: PcmFormat | None = None) -> None:
        self.fallback = fallback
        self.kind = ""
        self.unstamped = 0
        self.lost_samples = 0
        self.rate = 0
        self.stream_id = 0
        self.position = 0
        self._clock = SampleClock(1)

    def push(self, message: Any, now_ns: int) -> Piece | None:
        """The message's samples with stamp and index; None when it holds none.

        :param now_ns: the time of reception [ns].
        :raises UserError: when it is no audio, or its format is not known.
        """
        got = decode(message, self.fallback)
        self.kind = self.kind or describe(message)
        if not len(got.samples):
            return None
        if got.rate != self.rate:
            self.rate = got.rate
            self.stream_id += 1
            self.position = 0
            self._clock = SampleClock(got.rate, settle_within=1.0)
        if got.stamp_ns is None:
            # the last sample cannot have been recorded later than now
            seen = now_ns - round(len(got.samples) / got.rate * 1e9)
            self.unstamped += 1
        else:
            seen = got.stamp_ns
            leap = (seen - self._clock.time_of(self.position)) * 1e-9
            if self.position and leap > LEAP_SECONDS:
                missing = round(leap * got.rate)
                self.position += missing
                self.lost_samples += missing
        stamp = self._clock.update(self.position, seen)
        piece = Piece(stamp, self.stream_id, self.position, got.rate, got.samples)
        self.position += len(got.samples)
        return piece
