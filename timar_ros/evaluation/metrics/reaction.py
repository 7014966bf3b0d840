"""Reaction time of a listening head: power of nodding in real time around the ends of the partner's phrases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from timar_ros.evaluation.metrics.behaviour import NOD_BAND, phrase_ends
from timar_ros.evaluation.metrics.conversation_signals import Floats, voice_activity
from timar_ros.motion import MOTION_RATE, PITCH

BEFORE, AFTER = 1.0, 3.0
"""Analysed real time before and after a phrase's end [s]."""
BIN = 0.2
"""Width of the bins in which power is averaged [s]."""


@dataclass
class Reactions:
    """Nod power around the ends of the partner's phrases, over any number of conversations.

    :ivar power: power of pitch between 1 and 4 Hz [rad^2], one row ``[frames]`` for each phrase; NaN where unknown.
    """

    power: list[NDArray[np.float64]]

    def add(self, motion: Floats, delay: float, user: Floats, agent: Floats) -> None:
        """Add a conversation.

        :param motion: ``[T, 56]`` at 25 Hz, by the time of the speech.
        :param delay: how much later the motion is shown [s]; may be one value or one for each frame ``[T]``.
        :param user: the partner's audio at 16 kHz; ``agent`` likewise.
        """
        heard, talks = voice_activity(user), voice_activity(agent)
        count = min(len(motion), len(heard), len(talks))
        shown = _as_shown(motion[:count, PITCH], delay)
        band = signal.butter(2, NOD_BAND, "bandpass", fs=MOTION_RATE, output="sos")
        power = np.square(signal.sosfiltfilt(band, shown))
        before, after = round(BEFORE * MOTION_RATE), round(AFTER * MOTION_RATE)
        for end in phrase_ends(heard[:count]):
            # An agent that speaks right after the phrase is not listening, and does not answer by nods.
            if end < before or talks[end : end + round(MOTION_RATE)].mean() > 0.5:
                continue
            row = np.full(before + after, np.nan)
            known = power[end - before : end + after]
            row[: len(known)] = known
            self.power.append(row)

    @property
    def bins(self) -> NDArray[np.float64]:
        """Mean power in each bin divided by the mean power of all bins: 1 is no reaction."""
        mean = np.nanmean(np.stack(self.power), axis=0)
        binned: NDArray[np.float64] = mean.reshape(-1, round(BIN * MOTION_RATE)).mean(axis=1) / np.nanmean(mean)
        return binned

    @property
    def peak(self) -> float:
        """Middle of the bin with the most power after the phrase's end [s]."""
        first = round(BEFORE / BIN)
        return float((np.argmax(self.bins[first:]) + 0.5) * BIN)

    @property
    def strength(self) -> float:
        """Power at the peak divided by the mean power of the second before the phrase's end."""
        first = round(BEFORE / BIN)
        return float(self.bins[first:].max() / self.bins[:first].mean())


def _as_shown(pitch: NDArray[np.floating], delay: float) -> NDArray[np.float64]:
    """Pitch ``[T]`` by the time at which it is shown; the head rests before."""
    times = np.arange(len(pitch), dtype=np.float64)
    shown: NDArray[np.float64] = np.interp(times - delay * MOTION_RATE, times, pitch.astype(np.float64))
    return shown
