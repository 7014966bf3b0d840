"""What the voice agents' examples share: an agent's PCM goes out through a head, paced, and can be interrupted.

An agent's speech comes in bursts faster than real time. `VoiceOutput.play` takes it, and holds the sender back once
more than `ahead` seconds wait, so that the agent's own idea of time stays near to what is heard. `interrupt` silences
the head and says how much was heard, for the agent to cut its memory there.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

POLL = 0.02


class Speaker(Protocol):
    """The part of `timar_ros.ros.Head` that is used here."""

    def say(self, samples: Any, rate: int) -> int:
        """Append PCM to the utterance; returns the utterance's number."""

    def finish(self) -> None:
        """The utterance is complete."""

    def cancel(self) -> None:
        """Fall silent."""

    def played(self) -> Any:
        """Utterance and seconds of it that were heard."""


class VoiceOutput:
    """One agent's voice.

    :param head: a `timar_ros.ros.Head`, or what behaves like it.
    :param ahead: how much speech may wait beyond what was heard [s].
    """

    def __init__(self, head: Speaker, ahead: float = 2.0) -> None:
        self.head = head
        self.ahead = ahead
        self.utterance = 0
        self.said = 0.0
        self._finished = True

    async def play(self, pcm: Any, rate: int) -> None:
        """Append PCM (bytes of int16, or samples) to the utterance; returns once the agent may send more."""
        if self._finished:
            self.said, self._finished = 0.0, False
        self.utterance = utterance = self.head.say(pcm, rate)
        self.said += (len(pcm) // 2 if isinstance(pcm, (bytes, bytearray, memoryview)) else len(pcm)) / rate
        while not self._finished and self.utterance == utterance and self.said - self.heard() > self.ahead:
            await asyncio.sleep(POLL)

    def finish(self) -> None:
        """The agent has sent all of the utterance."""
        if not self._finished:
            self._finished = True
            self.head.finish()

    def heard(self) -> float:
        """How much of the utterance the loudspeaker has played [s]."""
        played = self.head.played()
        return float(played.seconds) if played.utterance == self.utterance else 0.0

    async def done(self) -> None:
        """Wait until the utterance has been heard, or was interrupted."""
        utterance = self.utterance
        while self.utterance == utterance and self.said - self.heard() > 1e-3:
            await asyncio.sleep(POLL)

    def interrupt(self) -> float:
        """Fall silent; returns how much of the utterance was heard [s]."""
        heard = self.heard()
        self.head.cancel()
        self.said, self._finished = heard, True
        return heard
