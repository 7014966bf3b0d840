"""Heads moved by rules alone, from loudness and chance; a learned head must beat them.

:func:`procedural` is a simple set of rules: a jaw that follows loudness, smooth noise for the head, beats on stressed
syllables, a nod when the partner pauses. :func:`wobbler` shakes the head by three sines, scaled by the voice's
loudness. Both are causal, need no weights and no torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.motion import HEAD, JAW_OPENING, MOTION_RATE
from timar_ros.streaming.activity import FRAME_SAMPLES, ActivityDetector

Floats = NDArray[Any]
Motion = NDArray[np.float32]

WIDEST_JAW = 0.17  # [rad]
# Deviation of pitch, yaw and roll while speaking [rad], and the share of it while silent.
SIZE, SILENT = (0.077, 0.09, 0.048), 0.55
# Rates [Hz] and weights of the smooth noise.
NOISE = ((0.12, 1.0), (0.35, 0.6), (0.9, 0.3), (2.1, 0.12))
# Nods: frames after the partner falls silent, least frames of the phrase, share of phrases, least frames apart.
NOD_AFTER, NOD_PHRASE, NOD_SHARE, NOD_APART = 5, 15, 0.7, 25
NOD_HEIGHT, NOD_RATE, NOD_FRAMES = 0.06, 2.1, 18
# Frequencies [Hz] and amplitudes [rad] of the wobbler's pitch, yaw and roll.
WOBBLE = ((2.2, np.radians(4.5)), (0.6, np.radians(7.5)), (1.3, np.radians(2.25)))


def procedural(user: Floats, agent: Floats, frames: int, seed: int = 0, liveliness: float = 1.0) -> Motion:
    """Motion ``[frames, 56]`` in TIMAR's order.

    :param user: the partner's speech at 16 kHz ``[n]``; ``agent``: its own, likewise.
    :param liveliness: factor on the head's movement.
    """
    rng = np.random.default_rng(seed)
    loud, talks, heard = _loudness(agent, frames), _speaks(agent, frames), _speaks(user, frames)
    motion = np.zeros((frames, 56))
    motion[:, JAW_OPENING] = _follow(WIDEST_JAW * loud**1.5, 0.75, 0.5) + 0.01 * talks
    head = sum(weight * _smooth_noise(frames, hertz, rng) for hertz, weight in NOISE)
    head = head * np.array(SIZE) * _follow(np.where(talks, 1.0, SILENT), 0.08, 0.08)[:, None]
    # When the voice becomes louder, the head goes down with the beat.
    beat = _follow(loud, 0.35, 0.35) - _follow(loud, 0.06, 0.06)
    head += beat[:, None] * np.array((0.045, 0.0, 0.012))
    head[:, 0] += _nods(talks, heard, rng)
    motion[:, HEAD] = liveliness * head
    return motion.astype(np.float32)


def wobbler(_user: Floats, agent: Floats, frames: int, seed: int = 0, liveliness: float = 1.0) -> Motion:
    """Motion ``[frames, 56]`` of a head that sways by three sines while its own voice is loud; the jaw as above."""
    rng = np.random.default_rng(seed)
    loud = _loudness(agent, frames)
    motion = np.zeros((frames, 56))
    motion[:, JAW_OPENING] = _follow(WIDEST_JAW * loud**1.5, 0.75, 0.5) + 0.01 * _speaks(agent, frames)
    gate, time = _follow(loud, 0.3, 0.3), np.arange(frames) / MOTION_RATE
    for axis, ((hertz, size), phase) in enumerate(zip(WOBBLE, rng.uniform(0, 2 * np.pi, 3), strict=True)):
        motion[:, HEAD.start + axis] = liveliness * gate * size * np.sin(2 * np.pi * hertz * time + phase)
    return motion.astype(np.float32)


def _levels(speech: Floats, frames: int) -> Floats:
    """Level of each frame [dB below full scale], ``[frames]``."""
    speech = np.asarray(speech, np.float64)[: frames * FRAME_SAMPLES]
    speech = np.pad(speech, (0, frames * FRAME_SAMPLES - len(speech)))
    return 10 * np.log10(np.square(speech).reshape(frames, -1).mean(1) + 1e-10)


def _loudness(speech: Floats, frames: int) -> Floats:
    """How loud a voice is within the 32 dB below its loudest so far, 0 to 1."""
    level, loudest, peak = np.maximum(_levels(speech, frames), -70.0), np.empty(frames), -35.0
    for index, value in enumerate(level):
        peak = max(value, peak - 0.02)
        loudest[index] = peak
    return np.clip((level - loudest + 32) / 28, 0, 1) * (level > -52)


def _speaks(speech: Floats, frames: int) -> NDArray[np.bool_]:
    speech = np.asarray(speech, np.float32)[: frames * FRAME_SAMPLES]
    return ActivityDetector().process(np.pad(speech, (0, frames * FRAME_SAMPLES - len(speech))))


def _follow(target: Floats, rise: float, fall: float) -> Floats:
    """First-order follower; ``rise`` and ``fall`` are the shares of the way per frame."""
    filtered, state = np.empty(len(target)), 0.0
    for index, wanted in enumerate(target):
        state += (wanted - state) * (rise if wanted > state else fall)
        filtered[index] = state
    return filtered


def _smooth_noise(frames: int, hertz: float, rng: np.random.Generator) -> Floats:
    """Value noise ``[frames, 3]``: unit normal knots at a rate, joined by a smooth step."""
    knots = rng.standard_normal((int(frames / MOTION_RATE * hertz) + 4, 3))
    time = np.arange(frames) / MOTION_RATE * hertz + rng.random()
    index = time.astype(int)
    share = (time - index)[:, None]
    share = share**3 * (share * (6 * share - 15) + 10)
    return np.asarray(knots[index] * (1 - share) + knots[index + 1] * share)


def _nods(talks: NDArray[np.bool_], heard: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Pitch [rad] of nods at the partner's pauses, ``[frames]``."""
    frames = len(talks)
    pitch, time = np.zeros(frames), np.arange(NOD_FRAMES)
    shape = (1 - np.cos(2 * np.pi * NOD_RATE * time / MOTION_RATE)) / 2 * np.exp(-0.9 * time / MOTION_RATE)
    shape *= np.clip((NOD_FRAMES - time) / 6, 0, 1)
    quiet = run = 0
    last = -NOD_APART - 1
    for frame in range(frames):
        run, quiet = (run + 1, 0) if heard[frame] else (run, quiet + 1)
        if quiet != NOD_AFTER:
            continue
        if run >= NOD_PHRASE and not talks[frame] and rng.random() < NOD_SHARE and frame - last > NOD_APART:
            count = min(NOD_FRAMES, frames - frame)
            pitch[frame : frame + count] += NOD_HEIGHT * rng.uniform(0.6, 1.3) * shape[:count]
            last = frame
        run = 0
    return pitch
