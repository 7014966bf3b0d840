"""Node `audio_bridge`: another package's audio topic as our AudioChunks."""

from __future__ import annotations

from typing import Any

from timar_ros.data.foreign_audio import ENCODINGS, PcmFormat, format_from_info
from timar_ros.errors import UserError
from timar_ros.live.intake import AudioIntake
from timar_ros.motion import MODEL_RATE
from timar_ros.msg import AudioChunk
from timar_ros.nodes import messages, qos
from timar_ros.nodes.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.nodes.foreign import ForeignTopic
from timar_ros.nodes.process import run


class AudioBridge(ManagedNode):
    """Takes ros-drivers' or mgonzs13's audio_common_msgs, ROS4HRI voices, audio_utils, or raw arrays of std_msgs."""

    PARAMETERS = (
        Parameter(
            "input_topic", "audio", "topic to take audio from; its type is looked up and understood by its fields"
        ),
        Parameter("info_topic", "audio_info", "ros-drivers' AudioInfo with the format, if there is one"),
        Parameter("voice_id", "", "a ROS4HRI voice: takes /humans/voices/<voice_id>/audio instead of `input_topic`"),
        Parameter("output_topic", "user/audio", "topic to publish AudioChunks on"),
        Parameter("sample_rate", MODEL_RATE, "rate of audio that does not say its own [Hz]", 1000, 384_000),
        Parameter("channels", 1, "interleaved channels of audio that does not say its own", 1, 64),
        Parameter("encoding", "S16LE", "encoding of raw audio that does not say its own", choices=tuple(ENCODINGS)),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("audio_bridge", **options)
        self.input: ForeignTopic | None = None

    def configure(self) -> None:
        """Take the format from the parameters until an AudioInfo tells better."""
        form = PcmFormat(self.value("sample_rate"), self.value("channels"), self.value("encoding"))
        self._intake = AudioIntake(form)
        self._refused: str | None = None
        self._output = self.publish_on(AudioChunk, self.value("output_topic"), qos.audio())

    def activate(self) -> None:
        """Look for the input."""
        voice = self.value("voice_id")
        topic = f"/humans/voices/{voice}/audio" if voice else self.value("input_topic")
        self._info = ForeignTopic(self, self.value("info_topic"), self._on_info, optional=True)
        self.input = ForeignTopic(self, topic, self._on_audio)

    def deactivate(self) -> None:
        """Tell the receivers that this stream is over."""
        if self._intake.position:
            at, rate, stream = self._intake.position, self._intake.rate, self._intake.stream_id
            self._output.publish(messages.audio_message(self.now_ns(), at, rate, [], stream_id=stream, end=True))

    def diagnose(self) -> Diagnosis:
        """What comes in, and whether it can be trusted."""
        rows = {
            "input": (self.input.msgtype or "not there yet") if self.input else "",
            "kind": self._intake.kind,
            "stamped at reception": str(self._intake.unstamped),
            "lost samples": str(self._intake.lost_samples),
        }
        if self.input is not None and self.input.fault:
            return ERROR, self.input.fault, rows
        if self._refused is not None:
            return ERROR, self._refused, rows
        if self._intake.unstamped:
            return WARN, "the input has no stamps: its time is the time of reception", rows
        return OK, "bridging" if self._intake.kind else "waiting", rows

    def _on_info(self, message: Any) -> None:
        try:
            self._intake.fallback = format_from_info(message)
            self._refused = None
        except UserError as error:
            self._refused = str(error)
            raise

    def _on_audio(self, message: Any) -> None:
        if self._refused is not None:
            raise UserError(self._refused)
        piece = self._intake.push(message, self.now_ns())
        if piece is not None:
            self._output.publish(
                messages.audio_message(
                    piece.stamp_ns, piece.sample_index, piece.rate, piece.samples, stream_id=piece.stream_id
                )
            )


def main() -> int:
    """Executable `audio_bridge`."""
    return run(AudioBridge)


if __name__ == "__main__":
    raise SystemExit(main())
