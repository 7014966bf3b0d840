"""Behaviour of predicted motion in its conversation, beyond the paper's metrics: lips, listening, nods, spread.

Each figure exists for the prediction and, where it applies, for the truth (``*_truth``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from scipy.ndimage import uniform_filter1d

from timar_ros.data.motion_statistics import MAX_LAG, correlation_at
from timar_ros.evaluation.metrics.conversation_signals import (
    Flags,
    Floats,
    loudness,
    seam_ratio,
    stretches,
    voice_activity,
)
from timar_ros.motion import HEAD, JAW_OPENING, MOTION_RATE, PITCH

# Frequencies of nodding [Hz] (Hadar et al. 1983: ordinary head movement in conversation).
NOD_BAND = (1.0, 4.0)
# Frames after the end of a phrase in which a listener nods.
AFTER = round(MOTION_RATE)
# Frames of speech that make a phrase.
PHRASE = 15

BEHAVIOUR: dict[str, tuple[str, float]] = {
    "lips": ("jaw_follows", 1.0),
    "lips*": ("jaw_follows_truth", 1.0),
    "shut": ("jaw_listening", 1.0),
    "nods": ("nod_ratio", 1.0),
    "nods*": ("nod_ratio_truth", 1.0),
    "head": ("head_spread", 1.0),
    "jaw": ("jaw_spread", 1.0),
    "seam": ("seam_ratio", 1.0),
}
"""Columns of the printed table (a star: the truth's own). lips: correlation of voice and jaw; shut: jaw opening while
only the user speaks, divided by that while the agent speaks; nods: power of 1-4 Hz pitch after the user's phrases,
divided by that elsewhere; head, jaw: spread as a share of the truth's; seam: change at turn boundaries, divided by that
elsewhere."""


def measure(prediction: Floats, truth: Floats, user: Floats, agent: Floats, turn_frames: int = 25) -> dict[str, float]:
    """Figures of one conversation; NaN where it has nothing to measure.

    :param prediction: ``[T, 56]``; ``truth`` likewise (cropped to it).
    :param user: audio of the user, 16 kHz; ``agent`` likewise.
    """
    talks, heard = voice_activity(agent), voice_activity(user)
    count = min(len(prediction), len(truth), len(talks), len(heard))
    motion, real, talks, heard = prediction[:count], truth[:count], talks[:count], heard[:count]
    level = np.maximum(loudness(agent)[:count], -60.0)
    listens = heard & ~uniform_filter1d(talks.astype(float), 13).astype(bool)
    ends = phrase_ends(heard)
    return {
        "jaw_follows": _follows(level, motion[:, JAW_OPENING]),
        "jaw_follows_truth": _follows(level, real[:, JAW_OPENING]),
        "jaw_listening": _ratio(motion[listens, JAW_OPENING], motion[talks, JAW_OPENING]),
        "jaw_listening_truth": _ratio(real[listens, JAW_OPENING], real[talks, JAW_OPENING]),
        "nod_ratio": _nods(motion[:, PITCH], talks, ends),
        "nod_ratio_truth": _nods(real[:, PITCH], talks, ends),
        "head_spread": float(np.mean(motion[:, HEAD].std(0) / np.maximum(real[:, HEAD].std(0), 1e-6))),
        "jaw_spread": float(motion[:, JAW_OPENING].std() / max(float(real[:, JAW_OPENING].std()), 1e-6)),
        "seam_ratio": seam_ratio(motion[:, HEAD], turn_frames),
    }


def mean_behaviour(conversations: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Means over the conversations that have a value."""
    found = list(conversations)
    if not found:
        return {}
    columns = {name: np.array([one[name] for one in found]) for name in found[0]}
    return {name: float(np.nanmean(v)) if np.isfinite(v).any() else float("nan") for name, v in columns.items()}


def _follows(level: NDArray[np.float64], jaw: Floats) -> float:
    """Best correlation of the smoothed level with the jaw up to half a second before and after it."""
    smooth = uniform_filter1d(level, 5)
    if smooth.std() < 1e-3 or jaw.std() < 1e-6:
        return float("nan")
    if len(smooth) < 4 * MAX_LAG:
        return float("nan")
    return max(correlation_at(smooth, jaw, lag) for lag in range(-MAX_LAG, MAX_LAG + 1))


def _ratio(one: Floats, other: Floats) -> float:
    """Mean of one divided by mean of the other; NaN with less than a second of either."""
    if min(len(one), len(other)) < MOTION_RATE:
        return float("nan")
    return float(one.mean() / max(float(other.mean()), 1e-4))


def _nods(pitch: Floats, talks: Flags, ends: list[int]) -> float:
    """Power of 1-4 Hz pitch in the second after the user's phrases, divided by that while otherwise listening."""
    after, otherwise = nod_power(pitch, talks, ends)
    if min(len(after), len(otherwise)) < AFTER:
        return float("nan")
    return float(after.mean() / max(float(otherwise.mean()), 1e-12))


def phrase_ends(heard: Flags) -> list[int]:
    """Frames at which the user's phrases of 0.6 s or more end."""
    return [end for first, end in stretches(heard) if end - first >= PHRASE]


def nod_power(pitch: Floats, talks: Flags, ends: list[int]) -> tuple[Floats, Floats]:
    """Power of pitch between 1 and 4 Hz [rad^2] while the agent is silent: after the user's phrases, and elsewhere.

    :param pitch: of the head ``[T]``; ``talks [T]``: whether the agent speaks; ``ends``: of :func:`phrase_ends`.
    :returns: the frames within a second of an end, and the others; both empty for less than four seconds.
    """
    if len(pitch) < 4 * MOTION_RATE:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    power = np.square(signal.sosfiltfilt(signal.butter(2, NOD_BAND, "bandpass", fs=MOTION_RATE, output="sos"), pitch))
    after = np.zeros(len(pitch), bool)
    for end in ends:
        after[end : end + AFTER] = True
    return power[after & ~talks], power[~after & ~talks]
