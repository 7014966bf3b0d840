"""One speaker's audio on the conversation's time line: streams of any rate, placed by stamp and sample index."""

from __future__ import annotations

from math import exp

import numpy as np
from numpy.typing import NDArray

from timar_ros.motion import MODEL_RATE
from timar_ros.streaming.resampling import audio_context, resample_window
from timar_ros.streaming.turns.samples import SampleBuffer

NS = 1_000_000_000

# Stamps are averaged over this long [s]: jitter averages out, and clock drift is followed.
DRIFT_TIME = 20.0
# Differences below this [ns] are jitter, not drift.
DRIFT_TOLERANCE = 4_000_000
# A time base moves at most this far [ns] at a turn boundary: inaudible, since each turn is encoded alone.
DRIFT_STEP = 1_000_000
# A place halfway between two samples always goes to the same one, however its stamp is rounded to nanoseconds.
ROUNDING = 500
# Streams of one speaker kept at a time.
MAX_STREAMS = 8


class AudioStream:
    """One uninterrupted count of samples: where its samples lie in time, and those still needed."""

    def __init__(self, stream_id: int, rate: int, base: int, clock: int) -> None:
        self.stream_id = stream_id
        self.rate = rate
        self.base = base  # conversation time of index 0 [ns]
        self.clock = clock  # stamp minus conversation time [ns]
        self.drift = 0.0  # smoothed difference of stamps and indices [ns]
        self.end: int | None = None  # index after the last sample, once the source has ended
        self.samples = SampleBuffer()
        self.ahead = False  # its first chunk came ahead of its time
        self.dropped = False  # the rest of the stream is discarded
        self.start = 0  # conversation time [ns] of its first chunk; orders the streams
        self.strays = 0  # stamps in a row that disagree with the index
        self.stray_by = 0  # by how much [ns]

    def continues(self, stream_id: int, rate: int, index: int) -> bool:
        """Whether a chunk with these values can belong to this stream."""
        over = self.end is not None and index >= self.end and not self.dropped
        return self.stream_id == stream_id and self.rate == rate and not over

    def time_of(self, index: int) -> int:
        """Conversation time [ns] of a sample."""
        return self.base + index * NS // self.rate

    def index_at(self, time: int) -> int:
        """Index of the first sample at or after a conversation time [ns], to half a sample."""
        return self._place(time, self.rate)

    def lookahead(self) -> int:
        """How long after a turn [ns] samples are needed for resampling."""
        return audio_context(self.rate) * NS // self.rate

    def complete(self, start: int, end: int) -> bool:
        """Whether all samples for [start, end) have arrived, from this stream's first on."""
        begin = self.samples.begin
        if begin is None:
            return False
        first = max(self.index_at(start), begin)
        last = self.index_at(end) + audio_context(self.rate)
        if self.end is not None:
            last = min(last, self.end)
        return self.samples.complete(first, last)

    def render(self, start: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Samples at 16 kHz from a conversation time [ns] on, and which of them have really arrived."""
        first = self._place(start, MODEL_RATE)
        source = (first + np.arange(count, dtype=np.int64)) * self.rate // MODEL_RATE
        known = self.samples.known(source)
        if not known.any():
            return np.zeros(count, dtype=np.float32), known
        resampled = resample_window(self.samples.read, self.rate, first, count)
        resampled[~known] = 0.0
        return resampled, known

    def span(self, start: int, count: int) -> tuple[int, int]:
        """Samples of a turn at 16 kHz, as [first, last), in which this stream runs; an unended stream runs on."""
        first = self._place(start, MODEL_RATE)
        begin = (self.samples.begin or 0) * MODEL_RATE // self.rate
        end = None if self.end is None else self.end * MODEL_RATE // self.rate
        return (
            min(max(begin - first, 0), count),
            count if end is None else min(max(end - first, 0), count),
        )

    def note_stamp(self, difference: int, seconds: float) -> None:
        """Update the drift with a stamp's difference from the index [ns], for a chunk of this length."""
        self.drift += (1.0 - exp(-seconds / DRIFT_TIME)) * (difference - self.drift)

    def follow_drift(self) -> bool:
        """Move the time base towards the stamps, if they have drifted; returns whether it moved."""
        if abs(self.drift) <= DRIFT_TOLERANCE:
            return False
        step = int(max(-DRIFT_STEP, min(DRIFT_STEP, self.drift)))
        self.base += step
        self.drift -= step
        return True

    def _place(self, time: int, rate: int) -> int:
        return ((time - self.base + ROUNDING) * rate + NS // 2) // NS


class AudioTrack:
    """One speaker: the streams that carry the voice, one after the other."""

    def __init__(self) -> None:
        self.streams: list[AudioStream] = []
        self.late_since: int | None = None  # the conversation's present when all samples began to arrive late [ns]

    @property
    def newest(self) -> AudioStream | None:
        """The stream that begins last."""
        return self.streams[-1] if self.streams else None

    @property
    def ended(self) -> bool:
        """Whether the newest stream has ended."""
        return bool(self.streams) and self.streams[-1].end is not None

    def begin(self, stream: AudioStream, time: int) -> None:
        """Add a stream whose first chunk lies at a conversation time [ns]."""
        stream.start = time
        self.streams.append(stream)
        self.streams.sort(key=lambda s: s.start)
        del self.streams[:-MAX_STREAMS]

    def late_for(self, present: int | None) -> int:
        """For how long [ns] all samples of this speaker have arrived late."""
        return 0 if self.late_since is None or present is None else present - self.late_since

    def data_end(self) -> int | None:
        """Conversation time [ns] after the last sample that has arrived."""
        ends = [s.time_of(s.samples.end) for s in self.streams if s.samples.begin is not None]
        return max(ends, default=None)

    def ready(self, start: int, end: int, settled: int) -> bool:
        """Whether all expected samples of a turn [start, end) have arrived.

        :param settled: conversation time [ns] before which no more samples are expected, even out of order.
        """
        # A stream that begins later, known ahead of its time, does not end the one that runs now.
        stream = next((each for each in reversed(self.streams) if each.start < end), self.newest)
        if stream is None or stream.samples.begin is None or not stream.complete(start, end):
            return False
        # Samples before the first one that arrived may only be late.
        begin = stream.time_of(stream.samples.begin)
        return begin <= start or begin <= settled

    def render(self, start: int, count: int, *, only_ahead: bool = False) -> tuple[NDArray[np.float32], int]:
        """The speaker's samples of a turn at 16 kHz, and how many of them a running stream has lost.

        :param only_ahead: take the streams that are ahead, and silence for any other.
        """
        mixed = np.zeros(count, dtype=np.float32)
        received = np.zeros(count, dtype=bool)
        expected = np.zeros(count, dtype=bool)
        for stream in self.streams:
            if only_ahead and not stream.ahead:
                continue
            samples, known = stream.render(start, count)
            mixed[known] = samples[known]
            received |= known
            first, last = stream.span(start, count)
            expected[first:] = False
            expected[first:last] = True
        return mixed, int(np.count_nonzero(expected & ~received))

    def forget(self, before: int) -> None:
        """Drop samples before a conversation time [ns], except for resampling's context and the newest stream."""
        for stream in self.streams:
            period = NS if stream.rate != MODEL_RATE else 0  # the longest that resampling windows reach back to align
            stream.samples.forget(stream.index_at(before - period - stream.lookahead()))
        self.streams = [s for s in self.streams if s is self.newest or s.time_of(s.samples.end) > before - NS]
