"""Converts foreign audio messages to one counted, evenly stamped stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timar_ros.audio.timing import SampleClock
from timar_ros.foreign.foreign_audio import PcmFormat, Samples, decode, describe
from timar_ros.streaming.clock_steps import BACKWARD_STEP, FORWARD_STEP

LEAP_SECONDS = 0.1
"""If a stamp differs from the sample count's prediction by more than this [s], samples were lost."""


@dataclass(frozen=True)
class Piece:
    """Samples [n, channels] of a stream: the contents of an AudioChunk."""

    stamp_ns: int
    stream_id: int
    sample_index: int
    rate: int
    samples: Samples


class AudioIntake:
    """Adds the sample index and the even stamps that foreign audio lacks.

    A message without a stamp gets the time of its reception; ``unstamped`` counts such messages. Only a stamp that
    jumps ahead shows a loss: the index then jumps equally far, and ``lost_samples`` counts the missing samples.
    """

    def __init__(self, fallback: PcmFormat | None = None) -> None:
        self.fallback = fallback
        self.kind = ""
        self.unstamped = 0
        self.lost_samples = 0
        self.clock_steps = 0
        self.rate = 0
        self.stream_id = 0
        self.position = 0
        self._clock = SampleClock(1)

    def push(self, message: Any, now_ns: int) -> Piece | None:
        """The message's samples with stamp and index; None without samples.

        :param now_ns: the time of reception [ns].
        :raises UserError: when the message is no audio, or its format is unknown.
        """
        sound = decode(message, self.fallback)
        self.kind = self.kind or describe(message)
        if not len(sound.samples):
            return None
        if sound.rate != self.rate:
            self._begin(sound.rate)
        if sound.stamp_ns is None:
            # The last sample was recorded now at the latest.
            time_ns = now_ns - round(len(sound.samples) / sound.rate * 1e9)
            self.unstamped += 1
        else:
            time_ns = sound.stamp_ns
            leap = (time_ns - self._clock.time_of(self.position)) * 1e-9
            if self.position and not -BACKWARD_STEP <= leap * 1e9 <= FORWARD_STEP:
                # No samples were lost: the sender's clock stepped, so the count starts again.
                self.clock_steps += 1
                self._begin(sound.rate)
            elif self.position and leap > LEAP_SECONDS:
                missing = round(leap * sound.rate)
                self.position += missing
                self.lost_samples += missing
        stamp = self._clock.update(self.position, time_ns)
        piece = Piece(stamp, self.stream_id, self.position, sound.rate, sound.samples)
        self.position += len(sound.samples)
        return piece

    def _begin(self, rate: int) -> None:
        """Begin another count of samples, as another stream."""
        self.rate = rate
        self.stream_id += 1
        self.position = 0
        self._clock = SampleClock(rate, settle_within=1.0)
