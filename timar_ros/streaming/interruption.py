"""Which chunks of the agent's audio belong to speech that an interruption ended."""

from __future__ import annotations

from dataclasses import dataclass

from timar_ros.streaming.clock_steps import FORWARD_STEP, NS
from timar_ros.streaming.codec import Audio

AHEAD_NS = 100_000_000
"""A chunk that ends at least this long after its arrival is speech published ahead of its time."""

SAME_TIME_NS = 20_000_000
"""A chunk continues interrupted speech if its stamp is this close to the time that its index had before."""

MOST_STREAMS = 64
"""Streams remembered, the newest."""


@dataclass
class _Stream:
    base_ns: int
    """Time of the stream's sample 0."""
    next_index: int
    ahead: bool


class Interruption:
    """Tells the chunks that were published before an interruption from those published after it.

    A stamp is the time at which a chunk sounds. Of speech that is published ahead of its time, chunks that the sender
    published before the interruption may arrive after it, with stamps after it. Such a chunk continues the index and
    the time of a stream that the interruption ended. A microphone's stream may continue: its chunks are not ahead.
    """

    def __init__(self) -> None:
        self._at_ns = 0
        self._streams: dict[int, _Stream] = {}
        self._ended: dict[int, _Stream] = {}

    def begin(self, at_ns: int) -> None:
        """Interrupt the agent at a time [ns]."""
        self._at_ns = at_ns
        self._ended |= {key: stream for key, stream in self._streams.items() if stream.ahead}
        self._streams.clear()
        while len(self._ended) > MOST_STREAMS:
            del self._ended[next(iter(self._ended))]

    def covers(self, chunk: Audio, now_ns: int) -> bool:
        """Whether a chunk that arrives now belongs to interrupted speech; call it for every chunk, in order."""
        if now_ns < self._at_ns - FORWARD_STEP:  # the clock was set back after the interruption
            self._at_ns = 0
        if chunk.stamp_ns < self._at_ns:
            return True
        count = len(chunk.samples)
        base_ns = chunk.stamp_ns - chunk.sample_index * NS // chunk.rate
        ended = self._ended.get(chunk.stream_id)
        if ended is not None:
            if chunk.sample_index >= ended.next_index and abs(base_ns - ended.base_ns) <= SAME_TIME_NS:
                ended.next_index = chunk.sample_index + count
                return True
            del self._ended[chunk.stream_id]
        before = self._streams.pop(chunk.stream_id, None)
        ahead = chunk.stamp_ns + count * NS // chunk.rate - now_ns > AHEAD_NS
        self._streams[chunk.stream_id] = _Stream(
            base_ns, chunk.sample_index + count, ahead or (before is not None and before.ahead)
        )
        while len(self._streams) > MOST_STREAMS:
            del self._streams[next(iter(self._streams))]
        return False
