"""Node `audio_bridge`: converts another package's audio topic to AudioChunks."""

from __future__ import annotations

from typing import Any

from timar_ros.audio.intake import AudioIntake
from timar_ros.errors import UserError
from timar_ros.foreign.foreign_audio import ENCODINGS, PcmFormat, format_from_info
from timar_ros.motion import MODEL_RATE
from timar_ros.msg import AudioChunk
from timar_ros.ros import messages, qos
from timar_ros.ros.base import ERROR, OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.foreign_topics import ForeignTopic
from timar_ros.ros.node_process import run


class AudioBridge(ManagedNode):
    """Accepts ros-drivers' or mgonzs13's audio_common_msgs, ROS4HRI voices, audio_utils, or raw arrays of std_msgs."""

    PARAMETERS = (
        Parameter(
            "input_topic", "audio", "topic of the input audio; the node finds its type and reads it by its fields"
        ),
        Parameter("info_topic", "audio_info", "topic of ros-drivers' AudioInfo (the audio's format), if there is one"),
        Parameter("voice_id", "", "a ROS4HRI voice: read /humans/voices/<voice_id>/audio instead of `input_topic`"),
        Parameter("output_topic", "user/audio", "topic to publish AudioChunks on"),
        Parameter("sample_rate", MODEL_RATE, "rate of audio whose messages name no rate [Hz]", 1000, 384_000),
        Parameter("channels", 1, "interleaved channels of audio whose messages name no channels", 1, 64),
        Parameter("encoding", "S16LE", "encoding of raw audio whose messages name none", choices=tuple(ENCODINGS)),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__("audio_bridge", **options)
        self.input: ForeignTopic | None = None

    def configure(self) -> None:
        """Use the parameters' format until an AudioInfo arrives."""
        pcm_format = PcmFormat(self.value("sample_rate"), self.value("channels"), self.value("encoding"))
        self._intake = AudioIntake(pcm_format)
        self._refused: str | None = None
        self._output = self.publish_on(AudioChunk, self.value("output_topic"), qos.audio())

    def activate(self) -> None:
        """Subscribe to the input."""
        voice = self.value("voice_id")
        topic = f"/humans/voices/{voice}/audio" if voice else self.value("input_topic")
        self._info = ForeignTopic(self, self.value("info_topic"), self._on_info, optional=True)
        self.input = ForeignTopic(self, topic, self._on_audio)

    def deactivate(self) -> None:
        """Publish the end of the stream."""
        if self._intake.position:
            index, rate, stream = self._intake.position, self._intake.rate, self._intake.stream_id
            self._output.publish(messages.audio_message(self.now_ns(), index, rate, [], stream_id=stream, end=True))

    def diagnose(self) -> Diagnosis:
        """Report the input's format, stamps and losses."""
        rows = {
            "input": (self.input.msgtype or "no publisher yet") if self.input else "",
            "kind": self._intake.kind,
            "stamped at reception": str(self._intake.unstamped),
            "lost samples": str(self._intake.lost_samples),
        }
        if self.input is not None and self.input.fault:
            return ERROR, self.input.fault, rows
        if self._refused is not None:
            return ERROR, self._refused, rows
        if self._intake.unstamped:
            return WARN, "the input has no stamps: the node stamps it at reception", rows
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
