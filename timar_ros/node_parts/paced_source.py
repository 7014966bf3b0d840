"""Common base of the sources of a recorded conversation (files, bag): outputs, clock, and waiting for answers."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.duration import Duration
from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory

from timar_ros.bags.bag_foreign import AudioEvent, Event
from timar_ros.errors import UserError
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn
from timar_ros.node_parts.pacing import Playing
from timar_ros.ros import qos
from timar_ros.ros.base import ManagedNode, Parameter
from timar_ros.ros.messages import audio_chunk_message, motion_gap_message, motion_messages, to_stamp
from timar_ros.streaming.codec import tracked_bits
from timar_ros.streaming.stream_info import step_seconds

PACING = (
    Parameter("speed", 1.0, "speed of playing; 1: real time, 0: as fast as the nodes answer turns", 0.0, 1000.0),
    Parameter("start_delay", 0.5, "time between activation and the first sample [s]", 0.0, 60.0),
    Parameter("turns_ahead", 1, "turns to play beyond the last answered turn, if the node waits for answers", 0, 100),
    Parameter(
        "answered_by",
        "motion",
        "message that answers a turn; trajectory: the turn's motion, then a trajectory",
        choices=("motion", "turns", "trajectory"),
    ),
    Parameter("answer_timeout", 60.0, "longest wait for an answer; then the node plays on [s]", 0.1, 3600.0),
)


ARRIVAL = 10.0
"""How long the node waits until a topic's first message has arrived at all subscribers [s]. A subscriber that discovers
this node late gets the message with the writer's next heartbeat, in FastDDS after 3 s; messages of other topics
overtake it."""


class PacedSource(ManagedNode):
    """Plays a conversation from its beginning at every activation; subclasses implement :meth:`play`."""

    LISTENERS = 2
    """How many of the two audio topics must have a subscriber before the conversation begins."""

    _playing: Playing | None = None
    _ticks: Any = None
    _position = 0.0

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.finished = threading.Event()
        self._turn_duration = 1.0
        self._arrived: set[Any] = set()  # publishers whose first message has arrived

    def play(self, playing: Playing) -> None:
        """Play the conversation, in its own thread, until the end or a stop."""
        raise NotImplementedError

    def open_outputs(self, *, clock: bool) -> None:
        """Create the conversation's publishers; call in `configure`.

        :param clock: whether the node publishes /clock, too.
        :raises UserError: when this node would follow its own /clock.
        """
        if clock and self.get_parameter("use_sim_time").value:
            raise UserError("the node that publishes /clock cannot itself run with 'use_sim_time'")
        self._audio = {role: self.publish_on(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")}
        self._motion = self.publish_on(FlameMotion, "user/motion", qos.motion())
        self._ticks = self.publish_on(Clock, "/clock", qos.commands()) if clock else None

    def await_answers(self) -> None:
        """Subscribe to the topics that answer a turn; call in `configure`."""
        self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
        if self.value("answered_by") == "turns":
            self.subscribe(Turn, "turns", lambda m: self._answered(m.number), qos.turns(), optional=True)
        else:
            self.subscribe(FlameMotion, "agent/motion", lambda m: self._answered(m.turn), qos.motion(), optional=True)
        if self.value("answered_by") == "trajectory":
            self.subscribe(JointTrajectory, "joint_trajectory", self._take_trajectory, qos.commands(), optional=True)

    def activate(self) -> None:
        """Start to play."""
        self._position = 0.0
        self._arrived = set()
        self.finished.clear()
        self._playing = Playing(self.guard("playing", self._play), self.get_name())

    def deactivate(self) -> None:
        """Stop at once."""
        if self._playing is not None:
            self._playing.stop()
            self._playing = None

    def _play(self, playing: Playing) -> None:
        while not playing.stopped and self._listeners() < self.LISTENERS:
            self.get_logger().info("waiting for subscribers of the audio", throttle_duration_sec=5.0)
            playing.sleep(0.02)
        if not playing.sleep(float(self.value("start_delay"))):
            self.play(playing)

    def _listeners(self) -> int:
        return sum(publisher.get_subscription_count() > 0 for publisher in self._audio.values())

    def _take_info(self, message: StreamInfo) -> None:
        self._turn_duration = step_seconds(message) or self._turn_duration  # 0: not known

    def _answered(self, number: int) -> None:
        if self._playing is not None:
            self._playing.note_answer(number, to_be_followed=self.value("answered_by") == "trajectory")

    def _take_trajectory(self, message: JointTrajectory) -> None:  # noqa: ARG002 (only its arrival counts)
        if self._playing is not None:
            self._playing.note_trajectory()

    def tick(self, at_ns: int) -> None:
        """Publish /clock, if this node has it."""
        if self._ticks is not None:
            self._ticks.publish(Clock(clock=to_stamp(at_ns)))

    def publish(self, event: Event) -> None:
        """Publish a speaker's audio or the user's motion."""
        if isinstance(event, AudioEvent):
            self._audio[event.role].publish(audio_chunk_message(event))
            self.statistics.tick(f"{event.role}/audio")
            self._await_arrival(self._audio[event.role])
            return
        for message in motion_messages(event.stamp_ns, event.rate, event.frames) if len(event.frames) else ():
            self._motion.publish(message)
            self.statistics.tick("user/motion")
            self._await_arrival(self._motion)
        if not len(event.frames) or not tracked_bits(event.frames).all():
            # No turn must wait for missing frames.
            after = event.stamp_ns + round(len(event.frames) * 1e9 / event.rate)
            self._motion.publish(motion_gap_message(after, event.rate))

    def _await_arrival(self, publisher: Any) -> None:
        """At speed 0, wait until a topic's first message has arrived, so that no other message overtakes it."""
        if publisher in self._arrived or self.value("speed") != 0.0:
            return
        self._arrived.add(publisher)
        deadline = time.monotonic() + ARRIVAL
        # In short waits: a stop must not wait long.
        while not publisher.wait_for_all_acked(Duration(nanoseconds=20_000_000)):
            if self._playing is None or self._playing.stopped:
                return
            if time.monotonic() > deadline:
                self.get_logger().warning(f"{publisher.topic_name}: its first message did not arrive everywhere")
                return
