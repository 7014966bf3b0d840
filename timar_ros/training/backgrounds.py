"""What may sound behind a voice: babble, music, singing, a machine. Made by rules, with unit power.

A mouth must not follow any of it. Music and singing are therefore made of what loudness alone cannot tell from speech:
notes with attacks at the rate of syllables, and gliding vowels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from timar_ros.motion import MODEL_RATE

Array = NDArray[np.float32]
# Gives so many samples of somebody's speech.
Voice = Callable[[int, np.random.Generator], Array]

# Pieces of music and singing that are made once a process, and their length in samples.
PIECES, LENGTH = 24, 12 * MODEL_RATE
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 3, 5, 7, 10))
# First and second formants of vowels [Hz].
_VOWELS = ((730, 1090), (530, 1840), (270, 2290), (570, 840), (300, 870))


def background(samples: int, rng: np.random.Generator, voice: Voice | None = None) -> Array:
    """Some background ``[samples]`` of unit power.

    :param voice: where babble gets its voices; None: there is none.
    """
    kind = rng.choice(4, p=[0.3, 0.3, 0.25, 0.15])
    if kind == 0 and voice is not None:
        made = np.sum(
            [voice(samples, rng) * np.float32(rng.uniform(0.4, 1)) for _ in range(rng.integers(3, 8))], axis=0
        )
    elif kind == 3:
        made = _machine(samples, rng)
    else:
        piece = (_music if kind == 1 else _singing)(int(rng.integers(PIECES)))
        start = int(rng.integers(len(piece)))
        made = np.take(piece, np.arange(start, start + samples), mode="wrap")
    return np.asarray(made / (np.sqrt(np.mean(np.square(made))) + 1e-6), np.float32)


@lru_cache(maxsize=PIECES)
def _music(seed: int) -> Array:
    """Notes of a few instruments in a scale, and a drum in half of the pieces."""
    rng = np.random.default_rng([seed, 1])
    scale, root, beat = _SCALES[rng.integers(len(_SCALES))], rng.uniform(55, 110), rng.uniform(0.2, 0.6)
    made = np.zeros(LENGTH + 4 * MODEL_RATE, np.float32)
    for _ in range(rng.integers(1, 5)):
        octave, decay = int(rng.integers(1, 5)), rng.uniform(1.5, 8)
        partials = rng.uniform(0.1, 1, 6) / np.arange(1, 7) ** rng.uniform(0.5, 1.6)
        at = 0.0
        while at < LENGTH / MODEL_RATE:
            length = beat * rng.choice([0.5, 1, 1, 2])
            if rng.random() < 0.85:
                hertz = root * 2 ** (octave - 1 + scale[rng.integers(len(scale))] / 12)
                time = np.arange(int(MODEL_RATE * (length + 0.3))) / MODEL_RATE
                shape = np.minimum(time / rng.uniform(0.004, 0.06), 1) * np.exp(-decay * time)
                tone = sum(
                    a * np.sin(2 * np.pi * hertz * (k + 1) * time)
                    for k, a in enumerate(partials)
                    if hertz * (k + 1) < 7500
                )
                first = int(at * MODEL_RATE)
                made[first : first + len(time)] += (rng.uniform(0.4, 1) * shape * tone).astype(np.float32)
            at += length
    if rng.random() < 0.5:
        for at in np.arange(0, LENGTH / MODEL_RATE, beat):
            time = np.arange(int(0.15 * MODEL_RATE)) / MODEL_RATE
            hit = np.exp(-30 * time) * (
                rng.standard_normal(len(time)) * rng.uniform(0, 1) + np.sin(2 * np.pi * 70 * time)
            )
            made[int(at * MODEL_RATE) : int(at * MODEL_RATE) + len(time)] += (1.5 * hit).astype(np.float32)
    return made[:LENGTH]


@lru_cache(maxsize=PIECES)
def _singing(seed: int) -> Array:
    """One voice that sings vowels with vibrato, over music in half of the pieces."""
    rng = np.random.default_rng([seed, 2])
    scale, root = _SCALES[rng.integers(len(_SCALES))], rng.choice([110.0, 200.0]) * rng.uniform(0.8, 1.3)
    parts, total = [], 0
    while total < LENGTH:
        count = int(MODEL_RATE * rng.uniform(0.18, 1.1))
        time = np.arange(count) / MODEL_RATE
        hertz = root * 2 ** (scale[rng.integers(len(scale))] / 12 + rng.integers(0, 2) * 0.5)
        hertz = hertz * 2 ** (0.35 * np.sin(2 * np.pi * 5.5 * time) * np.minimum(time * 3, 1) / 12)
        phase = np.cumsum(hertz) / MODEL_RATE
        pulses = np.diff(np.floor(phase), prepend=0) - hertz / MODEL_RATE
        sound = lfilter([1], [1, -0.9], pulses)
        for formant in _VOWELS[rng.integers(len(_VOWELS))]:
            radius = np.exp(-np.pi * 90 / MODEL_RATE)
            sound = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * formant / MODEL_RATE), radius**2], sound)
        shape = np.minimum(1, np.minimum(time / 0.05, (time[-1] - time) / 0.06))
        sound = shape * sound / (np.abs(sound).max() + 1e-9) * rng.uniform(0.5, 1) * (rng.random() < 0.9)
        parts.append(sound.astype(np.float32))
        total += count
    made = np.concatenate(parts)[:LENGTH]
    if rng.random() < 0.5:
        other = _music(int(rng.integers(PIECES)))
        made = made + np.float32(rng.uniform(0.2, 0.8) * made.std() / (other.std() + 1e-6)) * other
    return made


def _machine(samples: int, rng: np.random.Generator) -> Array:
    """A hum with overtones and modulated noise: fans, engines, kitchens with their bangs."""
    time = np.arange(samples) / MODEL_RATE
    hertz = rng.uniform(40, 200)
    hum = sum(rng.uniform(0, 1) / k * np.sin(2 * np.pi * hertz * k * time + rng.uniform(0, 6)) for k in range(1, 9))
    noise = lfilter([1.0], [1.0, -rng.uniform(0.0, 0.95)], rng.standard_normal(samples))
    made = rng.uniform(0, 1) * hum + noise / noise.std() * (
        1 + rng.uniform(0, 0.9) * np.sin(2 * np.pi * rng.uniform(0.2, 9) * time)
    )
    for _ in range(rng.poisson(samples / MODEL_RATE)):
        first, length = int(rng.integers(samples)), int(MODEL_RATE * rng.uniform(0.02, 0.3))
        bang = rng.standard_normal(length) * np.exp(-6 * np.arange(length) / length) * rng.uniform(1, 6)
        made[first : first + length] += bang[: samples - first]
    return np.asarray(made, np.float32)
