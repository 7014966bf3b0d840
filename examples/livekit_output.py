"""LiveKit Agents: an audio output that speaks through the head: `session.output.audio = HeadOutput(head)`.

Needs `pip install livekit-agents` (tried with livekit 1.2). LiveKit learns how much of an answer was heard
when it was interrupted, and cuts its memory there.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from voice_output import VoiceOutput

try:
    from livekit import rtc
    from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities

    MISSING = ""
except ImportError as error:
    MISSING = f"this example needs LiveKit Agents ({error}): pip install livekit-agents"


if not MISSING:

    class HeadOutput(AudioOutput):
        """Frames may come faster than real time; `playback_finished` says what the loudspeaker has played.

        :param head: a `timar_ros.ros.Head`.
        """

        def __init__(self, head: Any) -> None:
            super().__init__(label="head", capabilities=AudioOutputCapabilities(pause=False))
            self.voice = VoiceOutput(head, ahead=10.0)
            self._capturing = False
            self._playing: asyncio.Task[None] | None = None

        async def capture_frame(self, frame: rtc.AudioFrame) -> None:
            """Say a frame."""
            await super().capture_frame(frame)
            if not self._capturing:
                self._capturing = True
                self.on_playback_started(created_at=time.time())
            await self.voice.play(bytes(frame.data), frame.sample_rate)

        def flush(self) -> None:
            """The answer is complete: it is over when it has been heard."""
            super().flush()
            if self._capturing:
                self._capturing = False
                self.voice.finish()
                self._playing = asyncio.ensure_future(self._play_out())

        async def _play_out(self) -> None:
            await self.voice.done()
            self._playing = None
            self.on_playback_finished(playback_position=self.voice.heard(), interrupted=False)

        def clear_buffer(self) -> None:
            """Interrupted: fall silent, and say how much was heard."""
            if not self._capturing and self._playing is None:
                return
            if self._playing is not None:
                self._playing.cancel()
                self._playing = None
            self._capturing = False
            heard = self.voice.interrupt()
            super().flush()
            self.on_playback_finished(playback_position=heard, interrupted=True)


if __name__ == "__main__":
    print(MISSING or "set session.output.audio = HeadOutput(head), with head = timar_ros.ros.Head()")
