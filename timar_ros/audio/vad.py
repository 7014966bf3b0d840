"""Voice activity detection, and the choice of the partner among several people."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from timar_ros.audio.devices import INSTALL
from timar_ros.errors import require
from timar_ros.motion import MODEL_RATE

FRAME = MODEL_RATE // 50
"""Samples of a frame: 20 ms."""


class VoiceActivity:
    """Detects speech in the frames of a stream, by WebRTC's detector.

    :param rate: sample rate of the pushed samples [Hz].
    :param strictness: 0: much sound counts as speech, 3: little.
    """

    def __init__(self, rate: int, strictness: int = 2) -> None:
        webrtcvad: Any = require("webrtcvad", INSTALL, "voice activity detection")
        self._vad = webrtcvad.Vad(strictness)
        self._resampler = None if rate == MODEL_RATE else soxr.ResampleStream(rate, MODEL_RATE, 1, dtype="float32")
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: npt.NDArray[np.float32]) -> list[bool]:
        """For each 20 ms frame that samples [n] complete: whether it is speech."""
        mono = samples if self._resampler is None else self._resampler.resample_chunk(samples)
        data = np.concatenate([self._rest, mono])
        count = len(data) // FRAME
        self._rest = data[count * FRAME :]
        whole = (np.clip(data[: count * FRAME], -1.0, 1.0) * 32767).astype("<i2").reshape(count, FRAME)
        return [bool(self._vad.is_speech(frame.tobytes(), MODEL_RATE)) for frame in whole]


class ActiveSpeaker:
    """Chooses the person who speaks as the partner, with hysteresis.

    A partner stays the partner while speaking, and ``hold`` seconds after that. Then the person who spoke for
    ``take_after`` of the last ``window`` seconds becomes the partner.

    :param take_after: speech that makes a person the partner [s].
    :param window: length of the window in which speech counts [s].
    :param hold: silence after which another person may become the partner [s].
    """

    def __init__(self, take_after: float = 0.6, window: float = 1.0, hold: float = 2.0) -> None:
        self.take_after = take_after
        self.window = window
        self.hold = hold
        self.partner: str | None = None
        self._spoken: dict[str, list[float]] = {}
        self._last: dict[str, float] = {}

    def push(self, person: str, time: float, speaking: bool) -> str | None:
        """Add a 20 ms frame of one person at ``time`` [s]; returns the partner."""
        times = self._spoken.setdefault(person, [])
        if speaking:
            times.append(time)
            # A single frame may be noise: only several frames in a row count as speech.
            if len(times) >= 5 and times[-5] > time - 0.25:
                self._last[person] = time
        while times and times[0] <= time - self.window:
            times.pop(0)
        wants = len(times) * FRAME / MODEL_RATE >= self.take_after
        free = self.partner is None or time - self._last.get(self.partner, -np.inf) > self.hold
        if wants and free:
            self.partner = person
        return self.partner

    def forget(self, person: str) -> None:
        """Remove a person who left."""
        self._spoken.pop(person, None)
        self._last.pop(person, None)
        if self.partner == person:
            self.partner = None
