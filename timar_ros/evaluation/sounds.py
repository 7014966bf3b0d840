"""Music, a song and speech in noise to judge lips by, made by other rules than training's backgrounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from timar_ros.evaluation.conduct import Floats, voice_activity
from timar_ros.motion import MODEL_RATE

Samples = NDArray[np.float32]
# Two bars of a common progression, as semitones above A (110 Hz), and a melody over it.
_CHORDS = ((0, 4, 7), (-3, 0, 4), (5, 9, 12), (7, 11, 14))
_MELODY = (12, 14, 16, 12, 9, 12, 16, 14, 17, 16, 14, 12, 14, 11, 7, 11)


def in_noise(speech: Floats, seed: int = 0) -> Samples:
    """A voice in a kitchen: pink noise and clatter, as loud as the voice is while it speaks (0 dB)."""
    rng = np.random.default_rng(seed)
    count = len(speech)
    spectrum = np.fft.rfft(rng.standard_normal(count)) / np.sqrt(np.maximum(np.arange(count // 2 + 1), 1.0))
    noise = np.fft.irfft(spectrum, count)
    noise /= noise.std()
    for first in rng.integers(0, count, count // MODEL_RATE):
        clatter = 4 * rng.standard_normal(min(MODEL_RATE // 8, count - first))
        noise[first : first + len(clatter)] += clatter * np.exp(-np.arange(len(clatter)) / (MODEL_RATE / 50))
    spoken = np.repeat(voice_activity(speech), 640)[:count]
    loud = np.sqrt(np.square(speech[: len(spoken)][spoken]).mean()) if spoken.any() else 0.0
    return np.asarray(speech + noise * (loud / noise.std()), np.float32)


def music(seconds: float, seed: int = 0) -> Samples:
    """Plucked chords with a drum, 100 beats a minute, at -20 dBFS."""
    rng = np.random.default_rng(seed)
    beat, made = 0.6, np.zeros(round((seconds + 2) * MODEL_RATE))
    time = np.arange(MODEL_RATE) / MODEL_RATE
    for index, at in enumerate(np.arange(0, seconds, beat)):
        first = round(at * MODEL_RATE)
        for semitone in _CHORDS[index // 4 % len(_CHORDS)]:
            hertz = 220 * 2 ** (semitone / 12)
            tone = sum(np.sin(2 * np.pi * hertz * k * time) / k**1.3 for k in range(1, 7))
            made[first : first + MODEL_RATE] += (
                rng.uniform(0.6, 1) * np.exp(-3 * time) * np.minimum(time / 0.01, 1) * tone
            )
        made[first : first + MODEL_RATE] += 3 * np.exp(-25 * time) * np.sin(2 * np.pi * 60 * time)
        late = first + round(beat / 2 * MODEL_RATE)
        made[late : late + MODEL_RATE] += np.exp(-60 * time) * rng.standard_normal(MODEL_RATE)
    return _at_level(made[: round(seconds * MODEL_RATE)])


def song(seconds: float, seed: int = 0) -> Samples:
    """A voice that sings vowels on a melody over the music, 6 dB above it, at -20 dBFS."""
    rng = np.random.default_rng(seed)
    notes, time = [], np.arange(round(0.6 * MODEL_RATE)) / MODEL_RATE
    for index in range(int(seconds / 0.6) + 1):
        hertz = 110 * 2 ** (_MELODY[index % len(_MELODY)] / 12) * 2 ** (0.03 * np.sin(2 * np.pi * 5 * time))
        glottal = signal.sawtooth(2 * np.pi * np.cumsum(hertz) / MODEL_RATE)
        for formant in ((700, 1150), (300, 2200), (450, 800), (500, 1800))[rng.integers(4)]:
            glottal = signal.sosfilt(
                signal.butter(1, (formant / 1.3, formant * 1.3), "band", fs=MODEL_RATE, output="sos"), glottal
            )
        notes.append(glottal / glottal.std() * np.minimum(1, np.minimum(time / 0.04, (time[-1] - time) / 0.08)))
    voice = _at_level(np.concatenate(notes)[: round(seconds * MODEL_RATE)])
    return _at_level(voice + 0.5 * music(seconds, seed))


def _at_level(made: Floats) -> Samples:
    return np.asarray(0.1 * made / max(float(made.std()), 1e-9), np.float32)
