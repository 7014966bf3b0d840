"""Voice activity detection."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

from timar_ros.audio.devices import INSTALL
from timar_ros.errors import require
from timar_ros.motion import MODEL_RATE

FRAME = MODEL_RATE // 50
"""Samples of a frame: 20 ms."""


class Heard(NamedTuple):
    """A frame: whether it is speech, and its level [dB of full scale]."""

    speaking: bool
    level: float


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

    def push(self, samples: npt.NDArray[np.float32]) -> list[Heard]:
        """The 20 ms frames that samples [n] in [-1, 1] complete."""
        mono = samples if self._resampler is None else self._resampler.resample_chunk(samples)
        data = np.concatenate([self._rest, mono])
        count = len(data) // FRAME
        self._rest = data[count * FRAME :]
        frames = np.clip(data[: count * FRAME], -1.0, 1.0).reshape(count, FRAME)
        levels = 10 * np.log10(np.maximum(np.mean(np.square(frames, dtype=np.float64), axis=1), 1e-12))
        whole = (frames * 32767).astype("<i2")
        return [
            Heard(bool(self._vad.is_speech(frame.tobytes(), MODEL_RATE)), float(level))
            for frame, level in zip(whole, levels, strict=True)
        ]
