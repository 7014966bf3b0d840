"""Voice activity, and who of several people is the one to talk to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from timar_ros.errors import require
from timar_ros.live.devices import INSTALL
from timar_ros.motion import MODEL_RATE

FRAME = MODEL_RATE // 50
"""Samples that are judged at a time: 20 ms."""


class VoiceActivity:
    """Seconds of speech in a stream, by WebRTC's detector.

    :param rate: sample rate of what is pushed [Hz].
    :param strictness: 0 takes much for speech, 3 little.
    """

    def __init__(self, rate: int, strictness: int = 2) -> None:
        webrtcvad: Any = require("webrtcvad", INSTALL, "voice activity detection")
        self._vad = webrtcvad.Vad(strictness)
        self._resampler = None if rate == MODEL_RATE else soxr.ResampleStream(rate, MODEL_RATE, 1, dtype="float32")
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: npt.NDArray[np.float32]) -> list[bool]:
        """Whether each 20 ms frame that samples [n] complete is speech."""
        mono = samples if self._resampler is None else self._resampler.resample_chunk(samples)
        data = np.concatenate([self._rest, mono])
        count = len(data) // FRAME
        self._rest = data[count * FRAME :]
        whole = (np.clip(data[: count * FRAME], -1.0, 1.0) * 32767).astype("<i2").reshape(count, FRAME)
        return [bool(self._vad.is_speech(frame.tobytes(), MODEL_RATE)) for frame in whole]


class ActiveSpeaker:
    """Chooses the partner among several people by who speaks, with hysteresis.

    The partner stays the partner while speaking and ``hold`` seconds beyond; then whoever has spoken for ``take_after``
    of the last ``window`` seconds becomes it.

    :param take_after: speech that makes somebody the partner [s].
    :param window: how long back speech counts [s].
    :param hold: silence after which a partner may be replaced [s].
    """

    def __init__(self, take_after: float = 0.6, window: float = 1.0, hold: float = 2.0) -> None:
        self.take_after = take_after
        self.window = window
        self.hold = hold
        self.partner: str | None = None
        self._spoken: dict[str, list[float]] = {}
        self._last: dict[str, float] = {}

    def push(self, person: str, time: float, speaking: bool) -> str | None:
        """Tell of a 20 ms frame of one person at ``time`` [s]; returns the partner."""
        times = self._spoken.setdefault(person, [])
        if speaking:
            times.append(time)
            # one frame is no speech: only a run of them keeps the floor
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
        """Somebody left."""
        self._spoken.pop(person, None)
        self._last.pop(person, None)
        if self.partner == person:
            self.partner = None
