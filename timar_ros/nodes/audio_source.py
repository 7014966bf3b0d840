"""Node `audio_source`: a recorded conversation as live audio chunks and tracked motion, or a microphone.

A recording is played in real time, at a factor of it, or as fast as the consumers take it. At any pace but real time
the node publishes `/clock`, and the other nodes run with `use_sim_time`: one second of the conversation is one second
everywhere.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np
from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory

from timar_ros.errors import UserError
from timar_ros.live.devices import find_device
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn
from timar_ros.nodes import qos
from timar_ros.nodes.base import OK, WARN, Diagnosis, ManagedNode, Parameter, run
from timar_ros.nodes.messages import audio_message, motion_messages, to_stamp
from timar_ros.nodes.microphone import MicrophoneFeed
from timar_ros.nodes.pacing import Playing
from timar_ros.nodes.playback import Recording, Step, load_recording, steps
from timar_ros.streaming.resampling import MOTION_RATE, audio_context

SETTLE = 0.15
"""At the very beginning the segmenter waits for its `max_lateness` [s] before it knows where the first turn begins."""

TAIL_SPEED = 5.0
"""Pace of the simulated clock after the end when the recording went as fast as it was taken."""


class AudioSource(ManagedNode):
    """Every activation plays the recording from its beginning, as a new stream."""

    PARAMETERS = (
        Parameter("recording", "", "stereo audio file: left the user, right the agent"),
        Parameter("user", "", "audio file of the user, instead of 'recording'"),
        Parameter("agent", "", "audio file of the agent, instead of 'recording'"),
        Parameter("user_motion", "", "the user's tracked FLAME motion beside it (.npz with exp and pose)"),
        Parameter("device", "", "microphone for the user's audio instead of a recording: name, number or 'default'"),
        Parameter("device_rate", 0, "rate to open the microphone with [Hz]; 0: its own", 0, 384_000),
        Parameter("device_channels", 0, "channels to open the microphone with; 0: one if it can", 0, 64),
        Parameter("chunk", 0.04, "length of an audio chunk [s]", 0.001, 1.0),
        Parameter("speed", 1.0, "pace: 1 is real time, 0 as fast as turns are acknowledged", 0.0, 1000.0),
        Parameter("publish_clock", False, "publish /clock in the conversation's time; needed at any speed but 1"),
        Parameter("agent_lead", 0.0, "how long ahead of its time the agent's audio is published [s]", 0.0, 10.0),
        Parameter("start_delay", 0.5, "wait so long after activation before the first sample [s]", 0.0, 60.0),
        Parameter("turns_ahead", 1, "at speed 0: turns played beyond the last acknowledged one", 0, 100),
        Parameter(
            "acknowledged_by",
            "motion",
            "at speed 0: what acknowledges a turn; trajectory: its motion and then a trajectory of it",
            choices=("motion", "turns", "trajectory"),
        ),
        Parameter("acknowledge_timeout", 60.0, "at speed 0: go on unacknowledged after so long [s]", 0.1, 3600.0),
    )  # fmt: skip

    _playing: Playing | None = None
    _microphone: MicrophoneFeed | None = None
    _position = 0.0

    def __init__(self, **options: Any) -> None:
        super().__init__("audio_source", **options)
        self._stream_id = 0
        self._turn_duration = 1.0
        self.finished = threading.Event()

    def configure(self) -> None:
        """Read the files, all at once: a file that fails must fail here."""
        if self.value("device"):
            find_device(self.value("device"), "input")
            self._audio = {"user": self.publish_on(AudioChunk, "user/audio", qos.audio())}
            return
        self.recording: Recording = load_recording(*map(self.value, ("recording", "user", "agent", "user_motion")))
        self._speed = float(self.value("speed"))
        self._simulated = bool(self.get_parameter("use_sim_time").value)
        if self._speed != 1.0 and not self.value("publish_clock"):
            raise UserError("a 'speed' other than 1 needs 'publish_clock', and 'use_sim_time' in the other nodes")
        if self.value("publish_clock") and self._simulated:
            raise UserError("the node that publishes /clock cannot itself run with 'use_sim_time'")
        self._audio = {role: self.publish_on(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")}
        self._motion = self.publish_on(FlameMotion, "user/motion", qos.motion())
        self._ticks = self.publish_on(Clock, "/clock", qos.commands()) if self.value("publish_clock") else None
        if self._speed == 0.0:
            self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
            if self.value("acknowledged_by") == "turns":
                self.subscribe(Turn, "turns", lambda m: self._acknowledge(m.number), qos.turns(), optional=True)
            else:
                self.subscribe(
                    FlameMotion, "agent/motion", lambda m: self._acknowledge(m.turn), qos.motion(), optional=True
                )
            if self.value("acknowledged_by") == "trajectory":
                self.subscribe(
                    JointTrajectory, "joint_trajectory", self._take_trajectory, qos.commands(), optional=True
                )

    def activate(self) -> None:
        """Start to play, or to listen."""
        if self.value("device"):
            self._microphone = MicrophoneFeed(
                self,
                self._audio["user"],
                self.value("device"),
                rate=self.value("device_rate"),
                channels=self.value("device_channels"),
                block=self.value("chunk"),
            )
            return
        self._stream_id += 1
        self._position = 0.0
        self.finished.clear()
        self._playing = Playing(self._play, "playback")

    def deactivate(self) -> None:
        """Stop at once."""
        if self._microphone is not None:
            self._microphone.close()
            self._microphone = None
        if self._playing is not None:
            self._playing.stop()
            self._playing = None

    def diagnose(self) -> Diagnosis:
        """How far the recording is, or how the microphone does."""
        if self._microphone is not None:
            rows = {name.replace("_", " "): str(value) for name, value in vars(self._microphone.counters).items()}
            if not self._microphone.present:
                return WARN, f"the microphone {self.value('device')} is gone", rows
            if self._microphone.trouble():
                return WARN, "the microphone lost samples or was gone", rows
            return OK, "listening", rows
        rows = {"position [s]": f"{self._position:.2f}", "length [s]": f"{self.recording.seconds:.2f}"}
        if self.finished.is_set():
            return OK, "finished", rows
        late = self.statistics.grown("chunks late")
        return (WARN, "too slow for this speed", rows) if late else (OK, "playing", rows)

    def _take_info(self, message: StreamInfo) -> None:
        self._turn_duration = float(message.hop if message.mode == "rolling" else message.turn_duration)

    def _acknowledge(self, number: int) -> None:
        if self._playing is not None:
            self._playing.note_answer(number, to_be_followed=self.value("acknowledged_by") == "trajectory")

    def _take_trajectory(self, message: JointTrajectory) -> None:  # noqa: ARG002 (that it came is what matters)
        if self._playing is not None:
            self._playing.note_trajectory()

    def _play(self, playing: Playing) -> None:
        while not playing.stopped and any(p.get_subscription_count() == 0 for p in self._audio.values()):
            self.get_logger().info("waiting for subscribers of the audio", throttle_duration_sec=5.0)
            playing.sleep(0.02)
        if playing.sleep(float(self.value("start_delay"))):
            return
        lead = float(self.value("agent_lead"))
        # The stream's time 0. A simulated clock starts from the wall's time, so that stamps are times of day in a bag.
        origin_ns = self.now_ns() + round(lead * 1e9)
        begun = time.monotonic() + lead
        self._tick(origin_ns, -lead)
        for step in steps(self.recording, float(self.value("chunk")), lead):
            if not self._wait(playing, origin_ns, begun, step.seconds):
                return
            self._tick(origin_ns, step.seconds)
            self._publish(origin_ns, step)
            self._position = step.seconds
        self.finished.set()
        self.get_logger().info(f"finished: {self.recording.seconds:.1f} s played")
        self._play_tail(playing, origin_ns)

    def _wait(self, playing: Playing, origin_ns: int, begun: float, seconds: float) -> bool:
        """Until the conversation's time is ``seconds``; False when told to stop."""
        if self._speed > 0.0:
            while (ahead := self._ahead(origin_ns, begun, seconds)) > 0.0 and not playing.sleep(ahead):
                pass
            if ahead < -0.1:
                self.statistics.count("chunks late")
        elif not playing.wait_for(
            lambda: seconds <= self._limit(playing.answered), float(self.value("acknowledge_timeout"))
        ):
            self.get_logger().warning(f"turn {playing.answered} was never acknowledged: going on without")
            playing.note_answer(playing.answered)
        return not playing.stopped

    def _ahead(self, origin_ns: int, begun: float, seconds: float) -> float:
        """How long it is until the conversation's time is ``seconds`` [s]."""
        if not self._simulated:
            return begun + seconds / self._speed - time.monotonic()
        # Somebody else's clock: it can be looked at, but not slept by.
        return min((origin_ns - self.now_ns()) * 1e-9 + seconds, 0.005)

    def _limit(self, answered: int) -> float:
        # A turn is over with its first sample beyond it, and with what resampling needs.
        rates = (self.recording.user_rate, self.recording.agent_rate)
        beyond = float(self.value("chunk")) + max(audio_context(rate) / rate for rate in rates)
        motion = self.recording.motion
        # Where the tracker lost the head, a turn waits for frames that may be late: here, for none that will come.
        if not answered or (motion is not None and bool(np.isnan(motion).any())):
            beyond += SETTLE
        return (answered + int(self.value("turns_ahead"))) * self._turn_duration + beyond + 1e-9

    def _tick(self, origin_ns: int, seconds: float) -> None:
        if self._ticks is not None:
            self._ticks.publish(Clock(clock=to_stamp(origin_ns + round(seconds * 1e9))))

    def _publish(self, origin_ns: int, step: Step) -> None:
        for piece in step.pieces:
            self._audio[piece.role].publish(
                audio_message(
                    origin_ns + round(piece.index * 1e9 / piece.rate),
                    piece.index,
                    piece.rate,
                    piece.samples,
                    stream_id=self._stream_id,
                    end=piece.end,
                )
            )
            self.statistics.tick(f"{piece.role}/audio")
        if step.frames is not None and len(step.frames):
            rate = self.recording.motion_rate
            for message in motion_messages(origin_ns + round(step.first_frame * 1e9 / rate), rate, step.frames):
                self._motion.publish(message)
                self.statistics.tick("user/motion")

    def _play_tail(self, playing: Playing, origin_ns: int) -> None:
        """Let the simulated clock run on, so that what was delayed still comes out, once all turns are answered."""
        if self._ticks is None:
            return
        chunk = float(self.value("chunk"))
        # Less than a frame at the end makes no turn.
        frames = int(self.recording.seconds * MOTION_RATE + 1e-9)
        last_turn = math.ceil(frames / (self._turn_duration * MOTION_RATE) - 1e-6)
        if self._speed == 0.0:
            playing.wait_for(lambda: playing.answered >= last_turn, float(self.value("acknowledge_timeout")))
        seconds = self._position
        while not playing.sleep(chunk / (self._speed or TAIL_SPEED)):
            seconds += chunk
            self._tick(origin_ns, seconds)


def main() -> int:
    """Executable `audio_source`."""
    return run(AudioSource)


if __name__ == "__main__":
    raise SystemExit(main())
