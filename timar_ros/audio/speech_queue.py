"""Converts bursts of the agent's speech to chunks that are stamped ahead of their time.

Nothing here needs ROS. `timar_ros.ros.Head` and the node `speech` publish the chunks of :meth:`SpeechQueue.due`.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError

Samples = NDArray[np.float32]

CHUNK_SECONDS = 0.02
"""Length of a published chunk [s]."""
HORIZON = 5.0
"""Speech is published at most this long before its time [s], so that a cancel leaves little for other nodes to drop."""
TRANSPORT = 0.1
"""Time for a chunk to reach the other nodes [s]; part of every lead."""
MOST_WAITING = 10.0
"""A sender that is faster than speech waits while more than this is unpublished [s]."""
CLOSEST = 0.05
"""A stream continues only if its next sample's time is at least this far ahead [s]; else another stream begins."""
GIVE_UP = 0.5
"""A stream without new samples ends this long after the time of its last sample [s]."""
MOST_STREAMS = 64
"""Number of streams whose utterances the queue remembers."""
LOWEST_RATE, HIGHEST_RATE = 1000, 384_000


def mono_pcm(samples: Any, rate: int) -> Samples:
    """Samples as float32 [n] in [-1, 1].

    :param samples: float [n] or [n, channels] in [-1, 1], int16 of the same shapes, or bytes of int16 (little-endian).
    :param rate: samples per second [Hz].
    :raises UserError: for another type or shape, values that are not finite, or an impossible rate.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise UserError(f"sample rate {rate!r}: give a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE}")
    if isinstance(samples, (bytes, bytearray, memoryview)):
        if len(samples) % 2:
            raise UserError(f"{len(samples)} bytes of PCM: 16-bit samples have an even number of bytes")
        samples = np.frombuffer(samples, "<i2")
    data = np.asarray(samples)
    if data.ndim not in (1, 2) or (data.ndim == 2 and not data.shape[1]):
        raise UserError(f"audio has shape {data.shape}: give [n] or [n, channels]")
    if data.dtype == np.int16:
        values = data.astype(np.float32) / np.float32(32768)
    elif np.issubdtype(data.dtype, np.floating):
        values = data.astype(np.float32)
    else:
        raise UserError(f"audio has type {data.dtype}: give float samples in [-1, 1], or int16")
    if not np.isfinite(values).all():
        raise UserError("audio contains values that are not finite")
    mixed: Samples = values if values.ndim == 1 else values.mean(axis=1, dtype=np.float32)
    return np.clip(mixed, np.float32(-1.0), np.float32(1.0))


def needed_lead(mode: str, *, turn_seconds: float, planning_lead: float, look_ahead: float) -> float:
    """How long before its time the agent's speech must be published [s], by the pipeline's mode."""
    before = {"anticipatory": turn_seconds + planning_lead, "rolling": look_ahead}
    return before.get(mode, 0.0) + TRANSPORT


@dataclass(frozen=True)
class SpeechChunk:
    """A piece of a stream: samples [n], the first at ``stamp_ns``; the stream's last chunk has ``end``."""

    stamp_ns: int
    stream_id: int
    sample_index: int
    rate: int
    samples: Samples
    end: bool


@dataclass(frozen=True)
class Played:
    """The loudspeaker's progress in the last utterance that it played."""

    utterance: int = 0
    """The number from ``say``; 0 before the first utterance."""
    seconds: float = 0.0
    """Length of the utterance's played part [s]."""
    speaking: bool = False
    """Whether the loudspeaker plays now."""


@dataclass
class _Stream:
    stream_id: int
    utterance: int
    rate: int
    origin_ns: int
    before: float  # seconds of the utterance in earlier streams
    index: int = 0

    def stamp_ns(self) -> int:
        return self.origin_ns + round(self.index * 1e9 / self.rate)


@dataclass(frozen=True)
class _Piece:
    utterance: int
    rate: int
    samples: Samples | None  # None: the utterance ends


class SpeechQueue:
    """Schedules speech. Not thread-safe.

    The first sample of an utterance gets the time ``lead`` after its arrival, or right after the previous utterance.
    The rest of the utterance follows without a gap while it arrives early enough.

    :param lead: how long before its time speech is published [s]; see :func:`needed_lead`.
    """

    def __init__(self, lead: float = TRANSPORT) -> None:
        self.lead = lead
        self._waiting: deque[_Piece] = deque()
        self._stream: _Stream | None = None
        self._streams: dict[int, _Stream] = {}
        self._next_stream = random.randrange(1 << 30)  # noqa: S311 (clients must have different stream numbers)
        self._utterance = 0
        self._open = False
        self._busy_until_ns = 0
        self._said: dict[int, float] = {}
        self._last_said: tuple[int, float] | None = None
        self._played = Played()
        self._heard_ns: tuple[int, int] = (0, 0)  # begin and end of the newest played chunk

    def say(self, samples: Samples, rate: int) -> int:
        """Append samples [n] to the open utterance, or begin a new one; returns the utterance's number."""
        if not self._open:
            self._utterance += 1
            self._open = True
        if len(samples):
            self._waiting.append(_Piece(self._utterance, int(rate), samples))
        return self._utterance

    def finish(self) -> None:
        """Complete the open utterance; the next :meth:`say` begins another one."""
        if self._open:
            self._waiting.append(_Piece(self._utterance, 0, None))
            self._open = False

    def cancel(self) -> None:
        """Drop unpublished speech; later speech is another utterance in another stream."""
        self._waiting.clear()
        self._stream = None
        self._open = False
        self._busy_until_ns = 0
        self._last_said = None

    @property
    def empty(self) -> bool:
        """Whether all speech is published."""
        return not self._waiting

    @property
    def waiting_seconds(self) -> float:
        """Length of the unpublished speech [s]."""
        return sum(len(piece.samples) / piece.rate for piece in self._waiting if piece.samples is not None)

    @property
    def last_said(self) -> tuple[int, float] | None:
        """The newest utterance and its published length [s]; None before the first utterance and after a cancel."""
        return self._last_said

    @property
    def said_until_ns(self) -> int:
        """Time of the last published sample [ns]; 0 after a cancel."""
        return self._busy_until_ns if self._stream is None else self._stream.stamp_ns()

    def due(self, now_ns: int) -> list[SpeechChunk]:
        """The chunks to publish now, in order."""
        chunks: list[SpeechChunk] = []
        while self._waiting:
            piece = self._waiting[0]
            if piece.samples is None:
                self._waiting.popleft()
                if self._stream is not None and self._stream.utterance == piece.utterance:
                    chunks.append(self._end())
                continue
            stream = self._stream_for(piece, now_ns, chunks)
            room_ns = now_ns + round(max(HORIZON, 2 * self.lead) * 1e9) - stream.stamp_ns()
            if room_ns <= 0:
                break
            self._waiting.popleft()
            step = max(1, round(CHUNK_SECONDS * piece.rate))
            count = min(len(piece.samples), max(step, int(room_ns * 1e-9 * piece.rate)))
            for first in range(0, count, step):
                samples = piece.samples[first : min(first + step, count)]
                chunks.append(
                    SpeechChunk(stream.stamp_ns(), stream.stream_id, stream.index, stream.rate, samples, end=False)
                )
                stream.index += len(samples)
            self._said[piece.utterance] = self._said.get(piece.utterance, 0.0) + count / piece.rate
            self._last_said = (piece.utterance, self._said[piece.utterance])
            if count < len(piece.samples):
                self._waiting.appendleft(_Piece(piece.utterance, piece.rate, piece.samples[count:]))
        if not self._waiting and self._stream is not None and self._stream.stamp_ns() + GIVE_UP * 1e9 < now_ns:
            chunks.append(self._end())
        return chunks

    def _stream_for(self, piece: _Piece, now_ns: int, chunks: list[SpeechChunk]) -> _Stream:
        """The piece's stream: the current one, or a new one that begins with the piece."""
        stream = self._stream
        if stream is not None:
            fits = stream.utterance == piece.utterance and stream.rate == piece.rate
            if fits and stream.stamp_ns() >= now_ns + round(CLOSEST * 1e9):
                return stream
            chunks.append(self._end())
        origin_ns = max(now_ns + round(self.lead * 1e9), self._busy_until_ns)
        self._next_stream += 1
        before = self._said.get(piece.utterance, 0.0)
        stream = self._stream = _Stream(self._next_stream, piece.utterance, piece.rate, origin_ns, before)
        self._streams[stream.stream_id] = stream
        while len(self._streams) > MOST_STREAMS:
            old_stream = self._streams.pop(next(iter(self._streams)))
            if old_stream.utterance < self._utterance:
                self._said.pop(old_stream.utterance, None)
        return stream

    def _end(self) -> SpeechChunk:
        stream = self._stream
        assert stream is not None
        self._stream = None
        self._busy_until_ns = stream.stamp_ns()
        nothing = np.zeros(0, np.float32)
        return SpeechChunk(stream.stamp_ns(), stream.stream_id, stream.index, stream.rate, nothing, end=True)

    def hear(self, stream_id: int, sample_index: int, count: int, stamp_ns: int) -> bool:
        """Note what the loudspeaker plays: ``count`` samples of a stream, the first at ``stamp_ns``.

        :returns: whether the stream is one of this queue's.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return False
        seconds = stream.before + (sample_index + count) / stream.rate
        self._played = Played(stream.utterance, seconds)
        self._heard_ns = (stamp_ns, stamp_ns + round(count * 1e9 / stream.rate))
        return True

    def played(self, now_ns: int) -> Played:
        """The loudspeaker's progress at a time."""
        begin, end = self._heard_ns
        missing = max(0, end - max(now_ns, begin)) * 1e-9
        # audio_sink publishes a chunk up to half a period late; a gap of that size is no pause.
        speaking = end > 0 and now_ns < end + round(2 * CHUNK_SECONDS * 1e9)
        return Played(self._played.utterance, max(0.0, self._played.seconds - missing), speaking)
