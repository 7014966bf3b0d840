"""A Pipecat output transport that speaks through the head: `pipeline = Pipeline([..., tts, HeadOutput(head)])`.

Needs `pip install pipecat-ai` (tried with 1.14). The robot's microphone is already in the graph; a Pipecat
input transport of your own hears the partner for the speech recognition.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from voice_output import VoiceOutput

try:
    from pipecat.frames.frames import Frame, InterruptionFrame, OutputAudioRawFrame, StartFrame, TTSStoppedFrame
    from pipecat.processors.frame_processor import FrameDirection
    from pipecat.transports.base_output import BaseOutputTransport
    from pipecat.transports.base_transport import TransportParams

    MISSING = ""
except ImportError as error:
    MISSING = f"this example needs Pipecat ({error}): pip install pipecat-ai"


if not MISSING:

    class HeadOutput(BaseOutputTransport):
        """Audio frames go to the head, an interruption silences it.

        :param head: a `timar_ros.ros.Head`.
        """

        def __init__(self, head: Any) -> None:
            super().__init__(TransportParams(audio_out_enabled=True))
            # Little may wait here: Pipecat takes what it has handed over for spoken.
            self.voice = VoiceOutput(head, ahead=head.lead + 0.3)

        async def start(self, frame: StartFrame) -> None:
            """Ready at once: the head was found before."""
            await super().start(frame)
            await self.set_transport_ready(frame)

        async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
            """Say a frame; Pipecat waits until there is room for the next."""
            await self.voice.play(frame.audio, frame.sample_rate)
            return True

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            """Watch for interruptions and the end of an answer."""
            if isinstance(frame, InterruptionFrame):
                self.voice.interrupt()
            await super().process_frame(frame, direction)

        async def write_transport_frame(self, frame: Frame) -> None:
            """In order with the audio: the answer is complete."""
            if isinstance(frame, TTSStoppedFrame):
                self.voice.finish()


if __name__ == "__main__":
    print(MISSING or "put HeadOutput(head) at the end of your pipeline, with head = timar_ros.ros.Head()")
