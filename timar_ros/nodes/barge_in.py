"""Node `barge_in`: mutes the robot's own voice in the microphone, and detects a partner who interrupts the robot."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from timar_ros.audio.output_device import Timeline
from timar_ros.motion import MODEL_RATE
from timar_ros.msg import AudioChunk
from timar_ros.ros import qos
from timar_ros.ros.base import OK, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.messages import Audio, audio, audio_message, to_stamp
from timar_ros.ros.node_process import run
from timar_ros.streaming.echo_detector import BARGE_IN, BLOCK, EchoDetector

BLOCK_NS = round(BLOCK * 1e9 / MODEL_RATE)
WAIT_NS = 60_000_000
"""While the agent speaks, a microphone block waits this long for the played audio of the same time [ns]."""
PAUSE_NS = 100_000_000
"""Without a reference for this long the agent counts as silent, and no block waits [ns]."""
HANG_BLOCKS = 6
"""Blocks after the partner's speech that are not muted either: the ends of words."""


class Resampled:
    """One stream of chunks, converted to 16 kHz mono, with the time of each piece."""

    def __init__(self) -> None:
        self._key: tuple[int, int] | None = None
        self._next = 0
        self.pieces: deque[tuple[int, NDArray[np.float32]]] = deque()

    def push(self, chunk: Audio) -> bool:
        """Add a chunk; True if it begins another stream, or if samples are missing before it."""
        fresh = self._key != (chunk.stream_id, chunk.rate) or chunk.sample_index != self._next
        if fresh:
            self._key = (chunk.stream_id, chunk.rate)
            self._origin_ns, self._count = chunk.stamp_ns, 0
            same = chunk.rate == MODEL_RATE
            self._resampler = None if same else soxr.ResampleStream(chunk.rate, MODEL_RATE, 1, dtype="float32")
        self._next = chunk.sample_index + len(chunk.samples)
        mono = chunk.samples.mean(axis=1)
        samples = mono if self._resampler is None else self._resampler.resample_chunk(mono, last=chunk.end)
        if len(samples):
            self.pieces.append((self._origin_ns + round(self._count * 1e9 / MODEL_RATE), samples))
        self._count += len(samples)
        return fresh


class BargeIn(ManagedNode):
    """Compares the microphone with `agent/audio_out`. Remap the graph's source of `user/audio` to this node's input."""

    PARAMETERS = (
        Parameter("input_topic", "microphone/audio", "the microphone's AudioChunks"),
        Parameter("leak", 0.0, "factor on the microphone while it hears only the robot's own voice", 0.0, 1.0),
        Parameter("cancel", False, "interrupt the agent on every barge-in", dynamic=True),
        Parameter("cancel_service", "timar_inference/cancel", "service for `cancel`; without it: topic `cancel`"),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("barge_in", **options)

    def configure(self) -> None:
        """Create publishers, subscriptions and the service client."""
        self._output = self.publish_on(AudioChunk, "user/audio", qos.audio())
        self._events = self.publish_on(Header, "barge_in", qos.commands())
        self._cancels = self.publish_on(Header, "cancel", qos.commands())
        self.subscribe(AudioChunk, self.value("input_topic"), self._take_microphone, qos.audio())
        self.subscribe(AudioChunk, "agent/audio_out", self._take_played, qos.audio(), optional=True)
        self._service = self.create_client(Trigger, self.value("cancel_service"))
        for what in ("barge-ins", "blocks of the own voice", "blocks of the partner"):
            self.statistics.count(what, 0)

    def activate(self) -> None:
        """Start with a new echo detector."""
        self._detector = EchoDetector()
        self._reference, self._microphone = Resampled(), Resampled()
        self._timeline = Timeline(MODEL_RATE, 10.0)
        self._played_until_ns = 0
        self._waiting: deque[tuple[int, NDArray[np.float32]]] = deque()
        self._rest = np.zeros(0, np.float32)
        self._rest_ns = 0
        self._stream_id, self._index = 0, 0
        self._hang = 0

    def cleanup(self) -> None:
        """Destroy the service client."""
        if getattr(self, "_service", None) is not None:
            self.destroy_client(self._service)

    def diagnose(self) -> Diagnosis:
        """Report the echo's delay."""
        delay = self._detector.delay
        rows = {"echo delay [s]": "not known" if delay is None else f"{delay:.2f}"}
        return OK, "listening", rows

    def _take_played(self, message: AudioChunk) -> None:
        self._reference.push(audio(message))
        while self._reference.pieces:
            stamp_ns, samples = self._reference.pieces.popleft()
            self._timeline.add(stamp_ns, samples)
            self._played_until_ns = stamp_ns + round(len(samples) * 1e9 / MODEL_RATE)
        self._judge()

    def _take_microphone(self, message: AudioChunk) -> None:
        if self._microphone.push(audio(message)):
            self._stream_id, self._index = self._stream_id + 1, 0
            self._rest = np.zeros(0, np.float32)
        while self._microphone.pieces:
            stamp_ns, samples = self._microphone.pieces.popleft()
            if not len(self._rest):
                self._rest_ns = stamp_ns
            self._rest = np.concatenate([self._rest, samples])
            while len(self._rest) >= BLOCK:
                self._waiting.append((self._rest_ns, self._rest[:BLOCK]))
                self._rest, self._rest_ns = self._rest[BLOCK:], self._rest_ns + BLOCK_NS
        self._judge()

    def _judge(self) -> None:
        """Judge the blocks whose reference is known or will not come."""
        while self._waiting:
            begin_ns, samples = self._waiting[0]
            end_ns = begin_ns + BLOCK_NS
            speaking = self._played_until_ns > begin_ns - PAUSE_NS
            if speaking and self._played_until_ns < end_ns and self.now_ns() < end_ns + WAIT_NS:
                return
            self._waiting.popleft()
            self._pass_on(begin_ns, samples)

    def _pass_on(self, begin_ns: int, samples: NDArray[np.float32]) -> None:
        played, _ = self._timeline.take(begin_ns, BLOCK)
        verdict = self._detector.judge(played, samples)
        self._hang = HANG_BLOCKS if verdict.partner else max(0, self._hang - 1)
        own = verdict.own and not self._hang
        if own:
            samples = samples * np.float32(self.value("leak"))
        self.statistics.count("blocks of the own voice", own)
        self.statistics.count("blocks of the partner", verdict.partner)
        self._output.publish(audio_message(begin_ns, self._index, MODEL_RATE, samples, stream_id=self._stream_id))
        self._index += BLOCK
        if verdict.barge_in:
            self._interrupt(begin_ns)

    def _interrupt(self, now_ns: int) -> None:
        self.statistics.count("barge-ins")
        self._events.publish(Header(stamp=to_stamp(now_ns - round(BARGE_IN * 1e9))))
        if not self.value("cancel"):
            return
        if self._service.service_is_ready():
            self._service.call_async(Trigger.Request())
        else:
            self._cancels.publish(Header(stamp=to_stamp(self.now_ns())))


def main() -> int:
    """Executable `barge_in`."""
    return run(BargeIn)


if __name__ == "__main__":
    raise SystemExit(main())
