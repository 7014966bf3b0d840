"""What every source of a recorded conversation does, from files or a bag: outputs, clock, and waiting for answers."""

from __future__ import annotations

import threading
from typing import Any

from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory

from timar_ros.data.bag_foreign import AudioEvent, Event
from timar_ros.errors import UserError
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn
from timar_ros.nodes import qos
from timar_ros.nodes.base import ManagedNode, Parameter
from timar_ros.nodes.messages import audio_message, motion_messages, to_stamp
from timar_ros.nodes.pacing import Playing
from timar_ros.streaming.stream_info import step_seconds

PACING = (
    Parameter("speed", 1.0, "pace: 1 is real time, 0 as fast as turns are answered", 0.0, 1000.0),
    Parameter("start_delay", 0.5, "wait so long after activation before the first sample [s]", 0.0, 60.0),
    Parameter("turns_ahead", 1, "turns played beyond the last one answered, where answers are awaited", 0, 100),
    Parameter(
        "answered_by",
        "motion",
        "what answers a turn; trajectory: its motion and then a trajectory of it",
        choices=("motion", "turns", "trajectory"),
    ),
    Parameter("answer_timeout", 60.0, "go on unanswered after so long [s]", 0.1, 3600.0),
)


class PacedSource(ManagedNode):
    """Plays a conversation from its beginning at every activation; :meth:`play` says how."""

    LISTENERS = 2
    """Of the two audio topics, how many must have a subscriber before the conversation begins."""

    _playing: Playing | None = None
    _ticks: Any = None
    _position = 0.0

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.finished = threading.Event()
        self._turn_duration = 1.0

    def play(self, playing: Playing) -> None:
        """Play everything, in a thread of its own, until it is over or stopped."""
        raise NotImplementedError

    def open_outputs(self, *, clock: bool) -> None:
        """Open the conversation's topics; call in `configure`.

        :param clock: whether /clock is published, too.
        :raises UserError: when this node would follow the clock that it publishes.
        """
        if clock and self.get_parameter("use_sim_time").value:
            raise UserError("the node that publishes /clock cannot itself run with 'use_sim_time'")
        self._audio = {role: self.publish_on(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")}
        self._motion = self.publish_on(FlameMotion, "user/motion", qos.motion())
        self._ticks = self.publish_on(Clock, "/clock", qos.commands()) if clock else None

    def await_answers(self) -> None:
        """Listen to what answers a turn; call in `configure`."""
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
        self.finished.clear()
        self._playing = Playing(self._play, self.get_name())

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
        self._turn_duration = step_seconds(message)

    def _answered(self, number: int) -> None:
        if self._playing is not None:
            self._playing.note_answer(number, to_be_followed=self.value("answered_by") == "trajectory")

    def _take_trajectory(self, message: JointTrajectory) -> None:  # noqa: ARG002 (that it came is what matters)
        if self._playing is not None:
            self._playing.note_trajectory()

    def tick(self, at_ns: int) -> None:
        """Publish the clock, where this node does."""
        if self._ticks is not None:
            self._ticks.publish(Clock(clock=to_stamp(at_ns)))

    def publish(self, event: Event) -> None:
        """Publish a speaker's audio or the user's motion."""
        if isinstance(event, AudioEvent):
            message = audio_message(
                event.stamp_ns,
                event.sample_index,
                event.rate,
                event.samples,
                stream_id=event.stream_id,
                end=event.end,
            )
            self._audio[event.role].publish(message)
            self.statistics.tick(f"{event.role}/audio")
            return
        for message in motion_messages(event.stamp_ns, event.rate, event.frames):
            self._motion.publish(message)
            self.statistics.tick("user/motion")
