"""Input of the motion rules: features of clean speech at the motion's 25 frames a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks, lfilter

from timar_ros.motion import MODEL_RATE, MOTION_RATE, SAMPLES_PER_FRAME

WINDOW = 1024

Track = NDArray[np.float64]


@dataclass(frozen=True)
class SpeechFeatures:
    """Tracks ``[T]`` of one speaker.

    ``energy``: log-energy from 0 (silence) to about 1 (loud); ``open``, ``spread``, ``round``, ``hiss``: 0–1, the
    mouth's shape from the spectrum; ``effort``: energy smoothed over a second; ``stress``: (frame, strength) of the
    stressed syllables.
    """

    energy: Track
    open: Track
    spread: Track
    round: Track
    hiss: Track
    effort: Track
    stress: tuple[tuple[int, float], ...]


def smooth(track: Track, hertz: float) -> Track:
    """Critically damped second-order low pass, a model of muscles. Lags by about 1/(π·hertz) seconds."""
    pole = np.exp(-2 * np.pi * hertz / MOTION_RATE)
    start = track[..., :1]
    smoothed = lfilter([(1 - pole) ** 2], [1, -2 * pole, pole**2], track - start, axis=-1) + start
    return np.asarray(smoothed)


def _sigmoid(value: Track) -> Track:
    return np.asarray(1 / (1 + np.exp(-value)))


def listen(clean: NDArray[np.float32], frames: int) -> SpeechFeatures:
    """Features of one speaker's clean track ``[n]`` (RMS 0.1 while speaking) at ``frames`` frames."""
    # Each frame looks at 64 ms around its middle.
    half = WINDOW // 2
    padded = np.pad(clean, (half - SAMPLES_PER_FRAME // 2, WINDOW))
    index = np.arange(frames)[:, None] * SAMPLES_PER_FRAME + np.arange(WINDOW)[None, :]
    windows = padded[np.minimum(index, len(padded) - 1)] * np.hanning(WINDOW)[None, :]
    power = np.square(np.abs(np.fft.rfft(windows, axis=1))) / WINDOW
    hertz = np.fft.rfftfreq(WINDOW, 1 / MODEL_RATE)

    def band(low: float, high: float) -> Track:
        return np.asarray(10 * np.log10(power[:, (hertz >= low) & (hertz < high)].sum(axis=1) + 1e-6))

    cut = clean[: frames * SAMPLES_PER_FRAME]
    cut = np.pad(cut, (0, frames * SAMPLES_PER_FRAME - len(cut)))
    rms = np.sqrt(np.square(cut.reshape(frames, SAMPLES_PER_FRAME), dtype=np.float64).mean(axis=1))
    # Natural logarithms from -6.9 (below a room's noise) to -1.8 (peaks of speech).
    energy = np.clip((np.log(rms + 1e-3) + 6.9) / 5.0, 0.0, 1.2)
    voiced = _sigmoid((energy - 0.35) / 0.08)
    low, middle, high = band(100, 450), band(500, 1000), band(1600, 2800)
    hiss = _sigmoid((band(4000, 7500) - band(150, 1000) + 2) / 5) * _sigmoid((energy - 0.2) / 0.08)
    opened = _sigmoid((middle - low + 3) / 5) * voiced
    spread = _sigmoid((high - middle + 12) / 5) * voiced
    rounded = _sigmoid((low - high - 28) / 6) * voiced

    # Syllables are bumps of loudness; the stressed ones stand out from their neighbours.
    loudness = smooth(np.sqrt(rms / 0.1), 5.0)
    peaks, info = find_peaks(loudness, prominence=0.25, distance=5)
    stress = []
    for peak, prominence in zip(peaks, info["prominences"], strict=True):
        near = np.abs(peaks - peak) < MOTION_RATE
        if loudness[peak] >= np.quantile(loudness[peaks[near]], 0.6):
            # The smoothing delayed the peak by two frames.
            stress.append((max(int(peak) - 2, 0), float(min(prominence, 1.5))))
    return SpeechFeatures(energy, opened, spread, rounded, hiss, smooth(energy, 0.4), tuple(stress))
