"""Node `audio_source`: publishes a recorded conversation as live audio and tracked motion, or a microphone's audio.

The node plays a recording in real time, at a multiple of real time, or as fast as the nodes answer. At any speed but 1
the node publishes `/clock`, and the other nodes run with `use_sim_time`: one second of the conversation is one second
for all nodes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from timar_ros.audio.devices import find_device
from timar_ros.bags.bag_foreign import AudioEvent, Event, MotionEvent
from timar_ros.errors import UserError
from timar_ros.motion import MOTION_RATE
from timar_ros.msg import AudioChunk
from timar_ros.node_parts.microphone import MicrophoneFeed
from timar_ros.node_parts.paced_source import PACING, PacedSource
from timar_ros.node_parts.pacing import Playing
from timar_ros.node_parts.playback import Recording, Step, load_recording, steps
from timar_ros.ros import qos
from timar_ros.ros.base import OK, WARN, Diagnosis, Parameter
from timar_ros.ros.node_process import run
from timar_ros.streaming.resampling import audio_context

SETTLE = 0.15
"""At the start the segmenter waits for its `max_lateness` [s] before it knows where the first turn begins."""

TAIL_SPEED = 5.0
"""Speed of the simulated clock after the end of a recording that was played with speed 0."""


class AudioSource(PacedSource):
    """Every activation plays the recording from its beginning, as a new stream."""

    PARAMETERS = (
        Parameter("recording", "", "stereo audio file: user left, agent right"),
        Parameter("user", "", "audio file of the user, instead of 'recording'"),
        Parameter("agent", "", "audio file of the agent, instead of 'recording'"),
        Parameter("user_motion", "", "the user's tracked FLAME motion for the recording (.npz with exp and pose)"),
        Parameter("device", "", "microphone for the user's audio instead of a recording: name, number or 'default'"),
        Parameter("device_rate", 0, "rate to open the microphone with [Hz]; 0: its own", 0, 384_000),
        Parameter("device_channels", 0, "channels to open the microphone with; 0: one if possible", 0, 64),
        Parameter("chunk", 0.04, "length of an audio chunk [s]", 0.001, 1.0),
        Parameter("publish_clock", False, "publish /clock in the conversation's time; needed at any speed but 1"),
        Parameter("agent_lead", 0.0, "how long ahead of its time the agent's audio is published [s]", 0.0, 10.0),
        *PACING,
    )  # fmt: skip

    _microphone: MicrophoneFeed | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("audio_source", **options)
        self._stream_id = 0

    def configure(self) -> None:
        """Read all files, so that a wrong file fails here."""
        if self.value("device"):
            find_device(self.value("device"), "input")
            self._audio = {"user": self.publish_on(AudioChunk, "user/audio", qos.audio())}
            return
        self.recording: Recording = load_recording(*map(self.value, ("recording", "user", "agent", "user_motion")))
        self._speed = float(self.value("speed"))
        self._simulated = bool(self.get_parameter("use_sim_time").value)
        if self._speed != 1.0 and not self.value("publish_clock"):
            raise UserError("a 'speed' other than 1 needs 'publish_clock', and 'use_sim_time' in the other nodes")
        self.open_outputs(clock=self.value("publish_clock"))
        if self._speed == 0.0:
            self.await_answers()

    def activate(self) -> None:
        """Start to play the recording, or to read the microphone."""
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
        super().activate()

    def deactivate(self) -> None:
        """Stop at once."""
        if self._microphone is not None:
            self._microphone.close()
            self._microphone = None
        super().deactivate()

    def diagnose(self) -> Diagnosis:
        """Report the position in the recording, or the state of the microphone."""
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

    def play(self, playing: Playing) -> None:
        """Publish the recording, each piece at the time of its last sample."""
        lead = float(self.value("agent_lead"))
        # The stream's time 0. A simulated clock starts at wall time, so that stamps in a bag are times of day.
        origin_ns = self.now_ns() + round(lead * 1e9)
        started = time.monotonic() + lead
        self.tick(origin_ns - round(lead * 1e9))
        for step in steps(self.recording, float(self.value("chunk")), lead):
            if not self._wait(playing, origin_ns, started, step.seconds):
                return
            self.tick(origin_ns + round(step.seconds * 1e9))
            for event in self._events(origin_ns, step):
                self.publish(event)
            self._position = step.seconds
        self.finished.set()
        self.get_logger().info(f"finished: {self.recording.seconds:.1f} s played")
        self._play_tail(playing, origin_ns)

    def _wait(self, playing: Playing, origin_ns: int, started: float, seconds: float) -> bool:
        """Wait until the conversation's time is ``seconds``; False when the playing was stopped."""
        if self._speed > 0.0:
            while (ahead := self._ahead(origin_ns, started, seconds)) > 0.0 and not playing.sleep(ahead):
                pass
            if ahead < -0.1:
                self.statistics.count("chunks late")
        elif not playing.wait_for(
            lambda: seconds <= self._latest_time(playing.answered), float(self.value("answer_timeout"))
        ):
            self.get_logger().warning(f"turn {playing.answered} got no answer in time: playing on")
            playing.note_answer(playing.answered)
        return not playing.stopped

    def _ahead(self, origin_ns: int, started: float, seconds: float) -> float:
        """Time left until the conversation's time is ``seconds`` [s]."""
        if not self._simulated:
            return started + seconds / self._speed - time.monotonic()
        # Another node's clock: this thread can read it, but cannot sleep by it.
        return min((origin_ns - self.now_ns()) * 1e-9 + seconds, 0.005)

    def _latest_time(self, answered: int) -> float:
        # A turn is complete when the first sample after it has come, and the samples that resampling needs.
        rates = (self.recording.user_rate, self.recording.agent_rate)
        context = float(self.value("chunk")) + max(audio_context(rate) / rate for rate in rates)
        if not answered:
            context += SETTLE
        return (answered + int(self.value("turns_ahead"))) * self._turn_duration + context + 1e-9

    def _events(self, origin_ns: int, step: Step) -> Iterator[Event]:
        for piece in step.pieces:
            stamp_ns = origin_ns + round(piece.index * 1e9 / piece.rate)
            yield AudioEvent(
                stamp_ns, piece.role, stamp_ns, piece.index, piece.rate, piece.samples, self._stream_id, piece.end
            )
        if step.frames is not None and len(step.frames):
            rate = self.recording.motion_rate
            stamp_ns = origin_ns + round(step.first_frame * 1e9 / rate)
            yield MotionEvent(stamp_ns, stamp_ns, rate, step.frames)

    def _play_tail(self, playing: Playing, origin_ns: int) -> None:
        """Let the simulated clock run on once all turns are answered, so that delayed output still comes out."""
        if self._ticks is None:
            return
        chunk = float(self.value("chunk"))
        # An incomplete frame at the end makes no turn.
        frames = int(self.recording.seconds * MOTION_RATE + 1e-9)
        last_turn = math.ceil(frames / (self._turn_duration * MOTION_RATE) - 1e-6)
        if self._speed == 0.0:
            playing.wait_for(lambda: playing.answered >= last_turn, float(self.value("answer_timeout")))
        seconds = self._position
        while not playing.sleep(chunk / (self._speed or TAIL_SPEED)):
            seconds += chunk
            self.tick(origin_ns + round(seconds * 1e9))


def main() -> int:
    """Executable `audio_source`."""
    return run(AudioSource)


if __name__ == "__main__":
    raise SystemExit(main())
