"""Observes a running graph from another process: turns, their answers, latencies, and the end of the conversation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from timar_ros.motion import MOTION_RATE, MOTION_SIZE
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn
from timar_ros.ros import qos
from timar_ros.ros.messages import motion, to_ns

TOPICS = ("turns", "agent/motion", "agent/audio_out", "stream_info")
"""Topics that an Observer subscribes to, for `graph.describe`."""


@dataclass
class ObservedRun:
    """A run as another process observed it."""

    turns: dict[int, float] = field(default_factory=dict)
    """Arrival time of complete turns (anticipatory mode: planned turns) by number (monotonic clock [s])."""
    turn_stamps: dict[int, int] = field(default_factory=dict)
    """Time of each turn's first sample [ns]."""
    motion: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """The agent's frames [F, 56] by turn."""
    ahead: set[int] = field(default_factory=set)
    """Rolling mode: hops with known agent speech after them; their motion belongs to that later speech."""
    from_plan: set[int] = field(default_factory=set)
    """Rolling mode: hops that came too late, so that the plan of an earlier hop supplied their motion."""
    latency: dict[int, float] = field(default_factory=dict)
    """Time from the turn's arrival to its motion's arrival, both at this process [s]."""
    presented_until_ns: int = 0
    """End of the last frame of all motion."""
    audio_ns: int = 0
    """Stamp of the newest audio on agent/audio_out."""
    audio_seconds: float = 0.0
    """Length of the agent's audio on agent/audio_out so far [s]."""
    audio_ended: bool = False
    info: StreamInfo | None = None
    lost_user: int = 0
    lost_agent: int = 0
    progress: float = 0.0
    """Time of the last message (monotonic clock [s])."""

    def unanswered(self) -> list[int]:
        """Turns without motion, and numbers that never came."""
        if not self.turns:
            return []
        return sorted(set(range(max(self.turns) + 1)) - set(self.motion))

    def frames(self) -> NDArray[np.float32]:
        """All motion [T, 56], each frame at the time of its speech; NaN for turns without motion.

        If the agent's speech is known from the first hop on, the head rests before it.
        """
        if not self.motion:
            return np.zeros((0, MOTION_SIZE), np.float32)
        length = len(next(iter(self.motion.values())))
        shift = 0 if self.info is None else round(self.info.playback_delay * MOTION_RATE)
        starts = {number: number * length + (shift if number in self.ahead else 0) for number in self.motion}
        track = np.full((max(starts.values()) + length, MOTION_SIZE), np.nan, np.float32)
        if 0 in starts:
            track[: starts[0]] = 0.0
        for number, frames in sorted(self.motion.items()):
            track[starts[number] : starts[number] + len(frames)] = frames
        return track


class Observer(Node):
    """A plain node; spin it in the program's own executor.

    :param anticipatory: whether turns are answered when they begin.
    :param listening: False: subscribe to nothing. The observer keeps what it receives in memory, and its subscriptions
        cross the network if nodes run elsewhere.
    """

    def __init__(
        self, namespace: str = "/", *, anticipatory: bool = False, listening: bool = True, **options: Any
    ) -> None:
        super().__init__("observer", namespace=namespace, **options)
        self.observed = ObservedRun(progress=time.monotonic())
        self._phase = Turn.PLANNED if anticipatory else Turn.COMPLETE
        if not listening:
            return
        self.create_subscription(Turn, "turns", self._take_turn, qos.turns())
        self.create_subscription(FlameMotion, "agent/motion", self._take_motion, qos.motion())
        self.create_subscription(AudioChunk, "agent/audio_out", self._take_audio, qos.audio())
        self.create_subscription(StreamInfo, "stream_info", self._take_info, qos.latched())

    def now_ns(self) -> int:
        """The node's time [ns]."""
        return int(self.get_clock().now().nanoseconds)

    def finished(self) -> bool:
        """Whether the audio is over, the newest turn is answered, and all motion has been shown.

        Answers come in order: earlier turns without an answer were dropped.
        """
        observed = self.observed
        return (
            observed.audio_ended
            and max(observed.turns, default=-1) in observed.motion
            and self.now_ns() > observed.presented_until_ns
        )

    def _take_turn(self, message: Turn) -> None:
        observed = self.observed
        observed.progress = time.monotonic()
        if message.phase == Turn.COMPLETE:
            observed.lost_user += message.lost_user_samples
            observed.lost_agent += message.lost_agent_samples
        if message.phase == self._phase:
            observed.turns[message.number] = observed.progress
            observed.turn_stamps[message.number] = to_ns(message.header.stamp)
            if len(message.agent_ahead):
                observed.ahead.add(message.number)
            self._note_latency(message.number, observed.progress)

    def _take_motion(self, message: FlameMotion) -> None:
        observed = self.observed
        chunk = motion(message)
        now = observed.progress = time.monotonic()
        observed.motion[chunk.turn] = chunk.frames
        if message.from_plan:
            observed.from_plan.add(chunk.turn)
        observed.presented_until_ns = max(
            observed.presented_until_ns, chunk.stamp_ns + round(len(chunk.frames) * 1e9 / chunk.rate)
        )
        if chunk.turn in observed.turns:
            self._note_latency(chunk.turn, now)

    def _note_latency(self, number: int, now: float) -> None:
        # Turn and motion come on two topics, so a motion may arrive before its turn; its latency is then 0.
        if number in self.observed.motion and number in self.observed.turns:
            self.observed.latency[number] = now - self.observed.turns[number]

    def _take_audio(self, message: AudioChunk) -> None:
        observed = self.observed
        observed.progress = time.monotonic()
        observed.audio_ns = to_ns(message.header.stamp)
        frames = len(message.data) // max(1, message.channels)
        observed.audio_seconds = (message.sample_index + frames) / message.sample_rate
        observed.audio_ended = message.end_of_stream

    def _take_info(self, message: StreamInfo) -> None:
        self.observed.info = message
