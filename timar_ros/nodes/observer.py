"""What a program that runs the graph sees of it: turns, their answers, how long they took, and when all is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from timar_ros.motion import MOTION_RATE, MOTION_SIZE
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn
from timar_ros.nodes import qos
from timar_ros.nodes.messages import motion, to_ns

TOPICS = ("turns", "agent/motion", "agent/audio_out", "stream_info")
"""What an Observer subscribes to, for `graph.describe`."""


@dataclass
class Seen:
    """A run as it was seen from outside."""

    turns: dict[int, float] = field(default_factory=dict)
    """Complete turns (in anticipatory mode: planned ones) by number: when they came (monotonic clock [s])."""
    turn_stamps: dict[int, int] = field(default_factory=dict)
    """Time of each turn's first sample [ns]."""
    motion: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """The agent's frames [F, 56] by turn."""
    ahead: set[int] = field(default_factory=set)
    """Rolling mode: the hops after which the agent's speech was known; their motion goes with what is said then."""
    latency: dict[int, float] = field(default_factory=dict)
    """From the turn's arrival to its motion's, both at this process [s]."""
    presented_until_ns: int = 0
    """End of the last frame of all motion."""
    audio_ns: int = 0
    """Stamp of the newest audio that was given out."""
    audio_seconds: float = 0.0
    """How much of the agent's audio has been given out [s]."""
    audio_ended: bool = False
    info: StreamInfo | None = None
    lost_user: int = 0
    lost_agent: int = 0
    progress: float = 0.0
    """When anything last came (monotonic clock [s])."""

    def unanswered(self) -> list[int]:
        """Turns without motion, and numbers that never came."""
        if not self.turns:
            return []
        return sorted(set(range(max(self.turns) + 1)) - set(self.motion))

    def frames(self) -> NDArray[np.float32]:
        """All motion [T, 56], each frame at the time of the speech that it goes with; NaN for turns without.

        Where the agent's speech is known from the first hop on, nothing moves before: the head rests.
        """
        if not self.motion:
            return np.zeros((0, MOTION_SIZE), np.float32)
        length = len(next(iter(self.motion.values())))
        shift = 0 if self.info is None else round(self.info.playback_delay * MOTION_RATE)
        starts = {number: number * length + (shift if number in self.ahead else 0) for number in self.motion}
        made = np.full((max(starts.values()) + length, MOTION_SIZE), np.nan, np.float32)
        if 0 in starts:
            made[: starts[0]] = 0.0
        for number, frames in sorted(self.motion.items()):
            made[starts[number] : starts[number] + len(frames)] = frames
        return made


class Observer(Node):
    """A plain node; spin it in the program's own executor.

    :param anticipatory: whether turns are answered when they begin.
    :param listening: False: hear nothing. What is heard is kept, and crosses the network where nodes run elsewhere.
    """

    def __init__(
        self, namespace: str = "/", *, anticipatory: bool = False, listening: bool = True, **options: Any
    ) -> None:
        super().__init__("observer", namespace=namespace, **options)
        self.seen = Seen(progress=time.monotonic())
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
        """Whether the audio is over, the newest turn is answered, and all that was to be shown has been shown.

        Answers come in order: a turn that has none by then was dropped.
        """
        seen = self.seen
        return (
            seen.audio_ended and max(seen.turns, default=-1) in seen.motion and self.now_ns() > seen.presented_until_ns
        )

    def _take_turn(self, message: Turn) -> None:
        seen = self.seen
        seen.progress = time.monotonic()
        if message.phase == Turn.COMPLETE:
            seen.lost_user += message.lost_user_samples
            seen.lost_agent += message.lost_agent_samples
        if message.phase == self._phase:
            seen.turns[message.number] = seen.progress
            seen.turn_stamps[message.number] = to_ns(message.header.stamp)
            if len(message.agent_ahead):
                seen.ahead.add(message.number)
            self._note_latency(message.number, seen.progress)

    def _take_motion(self, message: FlameMotion) -> None:
        seen = self.seen
        made = motion(message)
        now = seen.progress = time.monotonic()
        seen.motion[made.turn] = made.frames
        seen.presented_until_ns = max(
            seen.presented_until_ns, made.stamp_ns + round(len(made.frames) * 1e9 / made.rate)
        )
        if made.turn in seen.turns:
            self._note_latency(made.turn, now)

    def _note_latency(self, number: int, now: float) -> None:
        # A turn may be seen after its motion, since they come on two topics; the motion then came at once.
        if number in self.seen.motion and number in self.seen.turns:
            self.seen.latency[number] = now - self.seen.turns[number]

    def _take_audio(self, message: AudioChunk) -> None:
        seen = self.seen
        seen.progress = time.monotonic()
        seen.audio_ns = to_ns(message.header.stamp)
        frames = len(message.data) // max(1, message.channels)
        seen.audio_seconds = (message.sample_index + frames) / message.sample_rate
        seen.audio_ended = message.end_of_stream

    def _take_info(self, message: StreamInfo) -> None:
        self.seen.info = message
