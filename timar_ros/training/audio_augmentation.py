"""Audio augmentation: makes lips trained on synthetic voices follow real people.

Synthetic voices are clean, of one level and of one room. Augmentation therefore applies a random frequency response,
room, band limit, noise and level to each clip's channels, so that the model learns only from what stays unchanged (when
and how strongly somebody speaks). All steps are linear and run once in the frequency domain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from timar_ros.motion import MODEL_RATE
from timar_ros.training.backgrounds import Voice, background
from timar_ros.training.run_config import AugmentConfig

Array = NDArray[np.float32]
# Knots of the random frequency response, evenly spaced in octaves.
KNOTS_HZ = np.geomspace(60.0, 8000.0, 8)


def augment(
    user: Array, agent: Array, options: AugmentConfig, rng: np.random.Generator, voice: Voice | None = None
) -> tuple[Array, Array]:
    """Both channels of a clip, changed; same lengths. Input and output speech has unit variance, as the model needs.

    :param user: user's speech ``[N]``.
    :param agent: agent's speech ``[N]``.
    :param voice: returns other people's speech for babble; None: no babble.
    """
    if rng.random() >= options.probability:
        return user.copy(), agent.copy()
    changed = [colour(samples, options, rng) for samples in (user, agent)]
    if rng.random() < options.crosstalk_probability:
        leaks = 10 ** (rng.uniform(*options.crosstalk_db, size=2) / 20)
        changed = [changed[0] + np.float32(leaks[0]) * changed[1], changed[1] + np.float32(leaks[1]) * changed[0]]
    for index in range(2):
        if rng.random() < options.background_probability:
            changed[index] = with_background(changed[index], options, rng, voice)
    return changed[0], changed[1]


def with_background(samples: Array, options: AugmentConfig, rng: np.random.Generator, voice: Voice | None) -> Array:
    """A channel with a background, whose level is relative to speech of unit variance."""
    share = np.float32(10 ** (-rng.uniform(*options.background_snr_db) / 20))
    mixed = samples + share * background(len(samples), rng, voice)
    return np.asarray(mixed / np.sqrt(1 + share**2), np.float32)


def colour(samples: Array, options: AugmentConfig, rng: np.random.Generator) -> Array:
    """A channel ``[N]`` with another frequency response, room, band limit, noise and level."""
    before = float(np.sqrt(np.mean(np.square(samples)) + 1e-8))
    padded = fft.next_fast_len(len(samples) + int(options.reverb_seconds[1] * MODEL_RATE), real=True)
    spectrum = fft.rfft(samples, padded)
    frequency = fft.rfftfreq(padded, 1 / MODEL_RATE)
    octave = np.log2(np.maximum(frequency, 20.0))
    response_db = np.interp(octave, np.log2(KNOTS_HZ), rng.normal(0, options.equaliser_db, len(KNOTS_HZ)))
    if rng.random() < options.band_limit_probability:
        low, high = rng.uniform(60, 300), rng.uniform(3000, 7500)
        response_db = (
            response_db - 30 * np.clip(np.log2(low) - octave, 0, 2) - 40 * np.clip(octave - np.log2(high), 0, 2)
        )
    spectrum = spectrum * (10 ** (response_db / 20)).astype(np.float32)
    if rng.random() < options.reverb_probability:
        spectrum = spectrum * fft.rfft(_room(options, rng), padded)
    voiced = fft.irfft(spectrum, padded)[: len(samples)].astype(np.float32)
    voiced *= before / float(np.sqrt(np.mean(np.square(voiced)) + 1e-8))
    level = before * 10 ** (-rng.uniform(*options.snr_db) / 20)
    noisy = voiced + np.float32(level) * _noise(len(samples), rng)
    after = float(np.sqrt(np.mean(np.square(noisy)) + 1e-8))
    return noisy * np.float32(before / after * 10 ** (rng.normal(0, options.gain_db) / 20))


def _room(options: AugmentConfig, rng: np.random.Generator) -> Array:
    """An impulse response: the direct sound and a tail of decaying noise."""
    seconds = rng.uniform(*options.reverb_seconds)
    time = np.arange(int(seconds * MODEL_RATE)) / MODEL_RATE
    # 60 dB of decay over `seconds`; the tail holds between -18 and -3 dB of the direct sound's energy.
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= 10 ** (rng.uniform(-18, -3) / 20) / np.sqrt(np.sum(np.square(tail)))
    tail[0] = 1.0
    return tail.astype(np.float32)


def _noise(samples: int, rng: np.random.Generator) -> Array:
    """Noise of unit power, coloured from white (slope 0) to brown (slope 1 in amplitude)."""
    size = fft.next_fast_len(samples, real=True)
    bins = size // 2 + 1
    shape = np.maximum(np.arange(bins) * MODEL_RATE / size, 30.0) ** -rng.uniform(0, 1)
    spectrum = (rng.standard_normal((2, bins), np.float32) * shape.astype(np.float32)).view(np.float32)
    noise = fft.irfft(spectrum[0] + 1j * spectrum[1], size)[:samples].astype(np.float32)
    return noise / np.float32(np.sqrt(np.mean(np.square(noise))) + 1e-12)
