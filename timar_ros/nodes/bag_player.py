"""Node `bag_player`: a bag's audio and user motion as a live source, at any rate, with the bag's own time on /clock.

Time is driven by the stamps: the clock shows a chunk's end when the chunk is published. And it waits for the nodes:
never more than `turns_ahead` turns are played beyond the last answered one, so that a machine too slow for the rate
plays more slowly instead of losing chunks or turns. So the nodes do the same at half the pace, at four times it, or
(rate 0) as fast as they answer.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory

from timar_ros.data.bag_foreign import AudioEvent, Event, Inputs, read_mapping
from timar_ros.data.bags import BagReader
from timar_ros.data.recording import find_bag
from timar_ros.errors import UserError
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo
from timar_ros.nodes import qos
from timar_ros.nodes.base import OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.nodes.messages import MessageError, audio_message, motion_messages, to_stamp
from timar_ros.nodes.pacing import Playing
from timar_ros.nodes.process import run
from timar_ros.streaming.resampling import audio_context

TICK_NS = 20_000_000
"""The clock goes on at least in such steps."""

TAIL_SECONDS = 60.0
"""So long [s] the clock runs on after the end at most, for what is still delayed."""


class BagPlayer(ManagedNode):
    """Every activation plays the bag from its beginning."""

    PARAMETERS = (
        Parameter("path", "", "bag to play: a folder, an .mcap or a .db3; also one that was cut off"),
        Parameter("mapping", "", "YAML that says which topics of a foreign bag are what (docs/bags.md)"),
        Parameter("rate", 1.0, "pace: 1 is real time, 0 as fast as turns are answered", 0.0, 1000.0),
        Parameter("start_delay", 0.5, "wait so long after activation before the first message [s]", 0.0, 60.0),
        Parameter("turns_ahead", 1, "turns played beyond the last one answered by agent/motion, at most", 0, 100),
        Parameter(
            "answered_by",
            "motion",
            "what answers a turn; trajectory: its motion and then a trajectory of it",
            choices=("motion", "trajectory"),
        ),
        Parameter("answer_timeout", 60.0, "no longer wait for answers after so long without one [s]", 0.1, 3600.0),
    )

    _playing: Playing | None = None
    _position = 0.0

    def __init__(self, **options: Any) -> None:
        super().__init__("bag_player", **options)
        self.finished = threading.Event()
        self._turn_duration = 1.0

    def configure(self) -> None:
        """Look at the bag, say what is in it and what is missing."""
        if not self.value("path"):
            raise UserError("parameter 'path' is empty: name the bag to play")
        if self.get_parameter("use_sim_time").value:
            raise UserError("the node that publishes /clock cannot itself run with 'use_sim_time'")
        self._path = find_bag(Path(self.value("path")))
        self._mapping = read_mapping(self.value("mapping")) if self.value("mapping") else None
        with BagReader(self._path) as bag:
            if bag.salvaged:
                self.get_logger().warning(f"the recording was cut off: {bag.salvaged}")
            inputs = Inputs(bag, self._mapping)
            for note in inputs.notes:
                self.get_logger().info(note)
            first = next((event for event in inputs.events() if isinstance(event, AudioEvent)), None)
            if first is None:
                raise UserError(f"{self._path} has no audio")
            self._origin = first.stamp_ns
            self._length = bag.seconds
        self._audio = {role: self.publish_on(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")}
        self._motion = self.publish_on(FlameMotion, "user/motion", qos.motion())
        self._ticks = self.publish_on(Clock, "/clock", qos.commands())
        self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
        self.subscribe(FlameMotion, "agent/motion", self._answered, qos.motion(), optional=True)
        if self.value("answered_by") == "trajectory":
            self.subscribe(JointTrajectory, "joint_trajectory", self._take_trajectory, qos.commands(), optional=True)

    def activate(self) -> None:
        """Start to play."""
        self._position = 0.0
        self._patient = True
        self.finished.clear()
        self._playing = Playing(self._play, "bag player")

    def deactivate(self) -> None:
        """Stop at once."""
        if self._playing is not None:
            self._playing.stop()
            self._playing = None

    def diagnose(self) -> Diagnosis:
        """How far it is."""
        rows = {"position [s]": f"{self._position:.2f}", "length [s]": f"{self._length:.2f}"}
        if self.finished.is_set():
            return OK, "finished", rows
        return (OK, "playing", rows) if self._patient else (WARN, "nobody answers", rows)

    def _take_info(self, message: StreamInfo) -> None:
        self._turn_duration = float(message.turn_duration)

    def _answered(self, message: FlameMotion) -> None:
        if self._playing is not None:
            self._playing.note_answer(message.turn, to_be_followed=self.value("answered_by") == "trajectory")

    def _take_trajectory(self, message: JointTrajectory) -> None:  # noqa: ARG002 (that it came is what matters)
        if self._playing is not None:
            self._playing.note_trajectory()

    def _play(self, playing: Playing) -> None:
        while not playing.stopped and all(p.get_subscription_count() == 0 for p in self._audio.values()):
            self.get_logger().info("waiting for subscribers of the audio", throttle_duration_sec=5.0)
            playing.sleep(0.02)
        if playing.sleep(float(self.value("start_delay"))):
            return
        self._begun = time.monotonic()
        self._now = self._origin
        self._tick(self._origin)
        try:
            with BagReader(self._path) as bag:
                for at, event in _timed(Inputs(bag, self._mapping).events(), self._origin):
                    if not self._reach(playing, at, _beyond(event)):
                        return
                    self._publish(event)
        except (UserError, MessageError) as error:
            # The bag was looked at before: only a torn or foreign message in its middle comes here.
            self.get_logger().error(f"the bag ends early: {error}")
        self.finished.set()
        self.get_logger().info(f"finished: {self._position:.1f} s played")
        # Before the clock runs on, the last turn is to be answered.
        self._await_answers(playing, self._position - self._turn_duration)
        ends = self._now + round(TAIL_SECONDS * 1e9)
        while self._now < ends and self._reach(playing, self._now + TICK_NS, None):
            pass

    def _reach(self, playing: Playing, at: int, beyond: float | None) -> bool:
        """Let time pass until ``at`` [ns], with the clock ticking; False when told to stop.

        :param beyond: what must come after a turn's end until it can be answered [s]; None: wait for no answer.
        """
        while self._now < at:
            step = min(at, self._now + TICK_NS)
            if not self._wait(playing, step, beyond):
                return False
            self._now = step
            self._position = (step - self._origin) * 1e-9
            self._tick(step)
        return not playing.stopped

    def _wait(self, playing: Playing, at: int, beyond: float | None) -> bool:
        seconds = (at - self._origin) * 1e-9
        rate = float(self.value("rate"))
        if beyond is not None:
            began = time.monotonic()
            ahead = int(self.value("turns_ahead")) * self._turn_duration
            self._await_answers(playing, seconds - beyond - ahead)
            # What was waited is not caught up with.
            self._begun += time.monotonic() - began
        # At rate 0 only the tail is paced, at five times life's speed.
        unpaced = 0.0 if beyond is not None else TICK_NS * 1e-9 / 5
        ahead = self._begun + seconds / rate - time.monotonic() if rate > 0.0 else unpaced
        return not (playing.sleep(ahead) if ahead > 0.0 else playing.stopped)

    def _await_answers(self, playing: Playing, seconds: float) -> None:
        """Wait until all turns that end by then [s of the conversation] are answered, if anybody answers at all."""
        if not self._patient or not self.count_publishers(self.resolve_topic_name("agent/motion")):
            return
        turns = math.ceil(seconds / self._turn_duration - 1e-9)
        if not playing.wait_for(lambda: playing.answered >= turns, float(self.value("answer_timeout"))):
            self._patient = False
            self.get_logger().warning(f"turn {playing.answered} was not answered: playing on without waiting")

    def _tick(self, at: int) -> None:
        self._ticks.publish(Clock(clock=to_stamp(at)))

    def _publish(self, event: Event) -> None:
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


def _timed(events: Iterator[Event], start: int) -> Iterator[tuple[int, Event]]:
    """Events with the time at which they could be known at the earliest: audio at its end, motion when it was seen."""
    now = start
    for event in events:
        known = event.stamp_ns
        if isinstance(event, AudioEvent) and event.rate > 0:
            known += len(event.samples) * 1_000_000_000 // event.rate
            if event.role == "agent":
                # A robot knows its own speech ahead of time, and the bag tells how much.
                known = min(known, event.arrived_ns)
        # Stamps of a stray clock must not stop the time, nor throw it hours ahead.
        if now < known <= now + 60_000_000_000:
            now = known
        yield now, event


def _beyond(event: Event) -> float:
    """What must come after a turn's last sample until the turn can be closed [s]."""
    if isinstance(event, AudioEvent):
        return len(event.samples) / event.rate + audio_context(event.rate) / event.rate + TICK_NS * 1e-9
    return 2.0 / event.rate


def main() -> int:
    """Executable `bag_player`."""
    return run(BagPlayer)


if __name__ == "__main__":
    raise SystemExit(main())
