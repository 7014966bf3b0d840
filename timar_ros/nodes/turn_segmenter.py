"""Node `turn_segmenter`: cuts both speakers' audio and a tracker's frames into turns of a fixed length."""

from __future__ import annotations

import math
import time
from typing import Any

from std_msgs.msg import Header

from timar_ros.motion import MOTION_RATE
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn, VoiceTiming
from timar_ros.ros import qos
from timar_ros.ros.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.messages import audio, motion, to_ns, to_stamp, turn_message
from timar_ros.ros.node_process import run
from timar_ros.ros.parameters import option_parameters, option_values
from timar_ros.streaming.echo import EchoGuard
from timar_ros.streaming.interruption import Interruption
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.turns import turn_types as streaming
from timar_ros.streaming.turns.turn_builder import TurnBuilder, TurnInput

LINGER = 0.1
"""Wall time [s] that the node waits after the end of both streams for messages of other topics."""

PERIOD = 0.05
"""How often the node checks whether a turn is due [s]."""

TIMING = ("mode", "planning_lead", "hop", "hop_margin", "look_ahead", "channel")
"""The pipeline's options that define the turns and their sound; they must equal those of `timar_inference`."""

STALL = 0.2
"""Wall time [s] between two ticks that shows that this process was held up."""


def _whole_frames(seconds: float) -> str | None:
    frames = seconds * MOTION_RATE
    return None if math.isclose(frames, round(frames)) else f"must be a whole number of frames of {1 / MOTION_RATE} s"


class TurnSegmenter(ManagedNode):
    """Publishes the turns of a TurnBuilder. Every activation begins a new conversation; turn numbers continue."""

    PARAMETERS = (
        Parameter("turn_seconds", 1.0, "length of a turn [s]; must be the model's", 0.04, 60.0, check=_whole_frames),
        Parameter("max_lateness", 0.05, "how long a turn waits after its end for missing input [s]", 0.0, 10.0),
        Parameter("tracker_timeout", 0.25, "after this time without new motion, the user is untracked [s]", 0.0, 60.0),
        Parameter("max_ahead", 120.0, "input further in the future is dropped [s]", 1.0, 3600.0),
        Parameter("max_pause", 10.0, "the node cuts out longer times without any audio [s]", 0.1, 3600.0),
        *option_parameters(PipelineOptions, TIMING),
        Parameter("agent_ahead", False, "the agent's audio comes ahead of its time, as from speech synthesis"),
        Parameter("echo_leak", 1.0, "factor on user audio while the agent speaks (half duplex); 1: off", 0.0, 1.0),
        Parameter("echo_hang", 0.25, "how long the room still carries the agent's voice [s]", 0.0, 5.0),
    )  # fmt: skip

    builder: TurnBuilder

    def __init__(self, **options: Any) -> None:
        super().__init__("turn_segmenter", **options)
        self._next_number = 0
        self._warned: dict[str, int] = {}
        self._disagreement: str | None = None
        self._delay_ns = 0

    def configure(self) -> None:
        """Create publishers and subscriptions."""
        self._output = self.publish_on(Turn, "turns", qos.turns())
        self._voices = self.publish_on(VoiceTiming, "agent/voice_timing", qos.commands())
        self.subscribe(AudioChunk, "user/audio", lambda m: self._take_audio("user", m), qos.audio())
        self.subscribe(AudioChunk, "agent/audio", lambda m: self._take_audio("agent", m), qos.audio())
        self.subscribe(FlameMotion, "user/motion", self._take_motion, qos.motion(), optional=True)
        self.subscribe(StreamInfo, "stream_info", self._check_info, qos.latched(), inactive=True)
        self.subscribe(Header, "cancel", self._cancel, qos.commands(), optional=True)
        self.every(PERIOD, self._advance, steady=True)
        self._next_number = 0

    def activate(self) -> None:
        """Begin a conversation."""
        options = PipelineOptions(**option_values(PipelineOptions, self.value, TIMING))
        # Rolling: the delay of an agent's voice that is not ahead of its time. Other modes: the playback delay.
        self._voice_delay_ns = options.delay_ns(0.0) if options.mode == "rolling" else None
        self.builder = TurnBuilder.of(
            options,
            self.value("turn_seconds"),
            max_lateness=self.value("max_lateness"),
            tracker_timeout=self.value("tracker_timeout"),
            max_ahead=self.value("max_ahead"),
            max_pause=self.value("max_pause"),
            agent_ahead=self.value("agent_ahead") or None,
            first_number=self._next_number,
        )
        self._guard = EchoGuard(self.value("echo_leak"), delay_ns=self._delay_ns, hang_seconds=self.value("echo_hang"))
        self._warned = {}
        self._interruptions, self._interruption = 0, Interruption()
        self._ended: dict[str, bool] = {"user": False, "agent": False}
        self._finish_at = math.inf
        self._advanced, self._held_up = time.monotonic(), False

    def deactivate(self) -> None:
        """Drop the current turn; its number is not used again."""
        if self.phase == "active" and hasattr(self, "builder"):
            self._next_number = self.builder.next_number

    def diagnose(self) -> Diagnosis:
        """Report the builder's counters."""
        counters = self.builder.counters.as_dict()
        rows = {name.replace("_", " "): str(number) for name, number in counters.items()}
        rows["samples muted against echo"] = str(self._guard.muted_samples)
        if self._disagreement is not None:
            return ERROR, self._disagreement, rows
        names = ("lost_user", "lost_agent", "late_chunks", "foreign_clocks", "clock_jumps")
        grown = [name for name in names if counters[name] > self._warned.get(name, 0)]
        self._warned = counters
        if grown:
            return WARN, f"rising: {', '.join(grown)}", rows
        remarks = self.builder.remarks()
        rows["sound"] = "; ".join(remarks) or "as it should be"
        # Silence is a normal state of the conversation; other remarks are warnings.
        wrong = [remark for remark in remarks if "silence" not in remark]
        return (WARN, wrong[0], rows) if wrong else (OK, "listening", rows)

    def _take_audio(self, role: str, message: AudioChunk) -> None:
        chunk = audio(message)
        samples = chunk.samples
        stream_id = chunk.stream_id
        if role == "agent":
            if self._interruption.covers(chunk, self.now_ns()):
                self.statistics.count("chunks cancelled")
                return
            stream_id += self._interruptions << 32  # the builder needs a new stream after an interruption
            self._guard.play(chunk.stamp_ns, chunk.rate, samples)
        else:
            samples = self._guard.hear(chunk.stamp_ns, chunk.rate, samples)
        self._report(
            self.builder.add_audio(
                role,  # type: ignore[arg-type]
                chunk.stamp_ns,
                chunk.sample_index,
                chunk.rate,
                samples,
                stream_id=stream_id,
                end=chunk.end,
            ),
            role,
        )
        for voice in self.builder.pop_voices():
            self._publish_timing(voice)
        self._publish_turns(self.builder.pop())
        self._ended[role] = chunk.end
        self._finish_at = time.monotonic() + LINGER if all(self._ended.values()) else math.inf

    def _publish_timing(self, voice: streaming.VoiceTiming) -> None:
        """Publish the stream's delay for the node that plays the agent's voice."""
        if self._voice_delay_ns is None:
            return
        delay_ns = 0 if voice.ahead else self._voice_delay_ns
        self._guard.delay_ns = delay_ns
        message = VoiceTiming(stream_id=voice.stream_id & 0xFFFFFFFF, delay=delay_ns / 1e9)
        message.header.stamp = to_stamp(voice.stamp_ns)
        self._voices.publish(message)
        self.statistics.count("utterances ahead" if voice.ahead else "utterances heard late")

    def _cancel(self, message: Header) -> None:
        """The agent was interrupted: drop its unsaid speech from the conversation."""
        at_ns = to_ns(message.stamp)
        self._interruption.begin(at_ns)
        self._interruptions += 1
        self._guard.silence(at_ns - self._delay_ns)
        self.builder.drop_agent()
        self.statistics.count("interruptions")

    def _take_motion(self, message: FlameMotion) -> None:
        tracked = motion(message)
        if len(tracked.frames):
            refused = self.builder.add_motion(tracked.stamp_ns, tracked.rate, tracked.frames)
        else:
            refused = self.builder.end_motion_gap(tracked.stamp_ns)
        self._report(refused, "user motion")
        self._publish_turns(self.builder.pop())

    def _advance(self) -> None:
        # After a hold-up, messages wait behind this timer: let the executor deliver them before time advances.
        before, self._advanced = self._advanced, time.monotonic()
        held_up = self._advanced - before > STALL
        if not (held_up and not self._held_up):
            self.builder.advance(self.now_ns(), time.monotonic_ns())
        self._held_up = held_up
        self._publish_turns(self.builder.pop())
        if time.monotonic() > self._finish_at:
            self._finish_at = math.inf
            self._publish_turns(self.builder.finish())

    def _publish_turns(self, turns: list[TurnInput]) -> None:
        for turn in turns:
            self._output.publish(turn_message(turn, MOTION_RATE))
            self.statistics.tick("planned turns" if turn.planned else "turns")
            over_ns = turn.stamp_ns + (0 if turn.planned else round(turn.duration * 1e9))
            self.statistics.latency("turn over to published", max(0.0, (self.now_ns() - over_ns) / 1e9))

    def _report(self, reason: str | None, what: str) -> None:
        if reason is not None:
            self.get_logger().warning(f"{what} refused: {reason}", throttle_duration_sec=5.0)

    def _check_info(self, info: StreamInfo) -> None:
        self._delay_ns = round(float(info.playback_delay) * 1e9)
        if self.phase == "active" and self._voice_delay_ns is None:
            self._guard.delay_ns = self._delay_ns
        self._disagreement = None
        used = {"anticipatory": TIMING[1:2], "rolling": TIMING[2:5]}.get(self.value("mode"), ())
        for name, own, other in (
            ("turn_seconds", float(self.value("turn_seconds")), float(info.turn_duration)),
            ("mode", self.value("mode"), info.mode),
            *((name, float(self.value(name)), float(getattr(info, name))) for name in (*used, "channel")),
        ):
            if own != other and not (isinstance(own, float) and math.isclose(own, other, rel_tol=1e-5)):
                self._disagreement = f"'{name}' is {own} here, but {other} in {info.model}'s stream_info"
                self.get_logger().error(self._disagreement)


def main() -> int:
    """Executable `turn_segmenter`."""
    return run(TurnSegmenter)


if __name__ == "__main__":
    raise SystemExit(main())
