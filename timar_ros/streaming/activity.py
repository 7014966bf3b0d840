"""One speaker's voice activity per motion frame, from the energy alone, causal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.motion import MODEL_RATE, MOTION_RATE

FRAME_SAMPLES = round(MODEL_RATE / MOTION_RATE)

NOTHING = -110.0  # zeros of a synthesiser's pause or a lost chunk, which say nothing about the noise [dBFS]
SILENCE = -75.0  # a level below this [dBFS] is no speech, whatever the noise
NOISE_START, NOISE_HIGHEST = -55.0, -30.0  # first and highest estimate of the noise floor [dBFS]
NOISE_RISE = 1.0 / MOTION_RATE  # how fast the floor's estimate rises [dB a frame]; it falls at once
FIRST_RISE, FIRST_FRAMES = 3.0 / MOTION_RATE, 50  # the same for the first frames, when the estimate is only a guess
PEAK_FALL = 0.5 / MOTION_RATE  # how fast the loudest level is forgotten [dB a frame]
ABOVE_NOISE = 12.0  # speech is this far above the noise [dB] …
BELOW_PEAK = 24.0  # … and at most this far below the loudest level [dB]; anything lower is another speaker's voice
HYSTERESIS = 3.0  # speech continues while its level is within this of the threshold [dB]
HANG = 4  # frames for which a pause between words still counts as speech


class ActivityDetector:
    """Finds for each frame of 40 ms whether a speaker speaks.

    The noise floor follows the quietest frames, the threshold lies above it and within a range below the loudest.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the speaker."""
        self._floor = NOISE_START
        self._peak = SILENCE
        self._active = False
        self._hang = 0
        self._frames = 0

    def process(self, speech: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Activity ``[F]`` of the next samples ``[640·F]`` at 16 kHz."""
        blocks = speech[: len(speech) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES).astype(np.float64)
        # A frame is as loud as its louder half, so that a word's onset counts with the frame it begins in.
        halves = blocks.reshape(len(blocks), 2, -1)
        power = (halves - halves.mean(axis=2, keepdims=True)).var(axis=2).max(axis=1)
        levels = 10.0 * np.log10(power + 1e-12)
        return np.array([self._step(float(level)) for level in levels], dtype=bool)

    def _step(self, level: float) -> bool:
        if level > NOTHING:
            self._frames += 1
            rise = FIRST_RISE if self._frames <= FIRST_FRAMES else NOISE_RISE
            self._floor = min(max(level, SILENCE), self._floor + rise, NOISE_HIGHEST)
        self._peak = max(level, self._peak - PEAK_FALL)
        threshold = max(self._floor + ABOVE_NOISE, self._peak - BELOW_PEAK, SILENCE)
        if self._active:
            threshold -= HYSTERESIS
        loud = level > threshold
        self._hang = HANG if loud else max(self._hang - 1, 0)
        self._active = loud or self._hang > 0
        return self._active

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The detector's state, fit for ``np.savez``."""
        return {"state": np.array([self._floor, self._peak, self._active, self._hang, self._frames], dtype=float)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Resume from a :meth:`state_dict`."""
        self._floor, self._peak, active, hang, frames = (float(value) for value in state["state"])
        self._active, self._hang, self._frames = bool(active), int(hang), int(frames)
