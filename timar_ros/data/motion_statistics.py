"""Statistics of conversational motion, to calibrate synthetic motion and to compare real tracking with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, filtfilt, welch

from timar_ros.motion import EXPRESSION, HEAD, JAW_OPENING, MOTION_RATE, PITCH, SAMPLES_PER_FRAME

# Largest lag between jaw and sound [frames], in both directions.
MAX_LAG = 12


def log_energy(speech: NDArray[np.float32]) -> NDArray[np.float64]:
    """Smoothed log-energy of speech in [-1, 1], one value per motion frame ``[n // 640]``: 4 Hz, without delay."""
    frames = len(speech) // SAMPLES_PER_FRAME
    power = np.square(speech[: frames * SAMPLES_PER_FRAME].reshape(frames, -1), dtype=np.float64).mean(axis=1)
    smoothing = butter(2, 4 / (MOTION_RATE / 2))
    return np.asarray(filtfilt(*smoothing, np.log(np.sqrt(power) + 1e-3)))


def correlation_at(driver: NDArray[np.floating], follower: NDArray[np.floating], lag: int) -> float:
    """Pearson correlation of a track with another one ``lag`` frames later (below 0: earlier)."""
    if lag < 0:
        driver, follower, lag = follower, driver, -lag
    length = min(len(driver), len(follower) - lag)
    return float(np.corrcoef(driver[:length], follower[lag : lag + length])[0, 1])


def speaking(speech: NDArray[np.float32], below_peak: float = 18.0) -> NDArray[np.bool_]:
    """Frames in which somebody speaks: within ``below_peak`` dB of the 95th percentile, gaps of 0.2 s closed."""
    frames = len(speech) // SAMPLES_PER_FRAME
    power = np.square(speech[: frames * SAMPLES_PER_FRAME].reshape(frames, -1), dtype=np.float64).mean(axis=1)
    level = 10 * np.log10(power + 1e-10)
    loud = (level > np.quantile(level, 0.95) - below_peak).astype(np.float64)
    return np.asarray(np.convolve(loud, np.ones(5) / 5, "same") > 0.3)


def phrase_ends(active: NDArray[np.bool_], silence: float = 0.3, shortest: float = 0.5) -> list[int]:
    """Frames where a stretch of speech of at least ``shortest`` seconds ends before ``silence`` seconds of quiet."""
    gap, least = round(silence * MOTION_RATE), round(shortest * MOTION_RATE)
    ends, begin = [], None
    for frame, on in enumerate(active):
        if on and begin is None:
            begin = frame
        if begin is not None and not active[frame : frame + gap].any():
            if frame - begin >= least:
                ends.append(frame)
            begin = None
    return ends


def nod_ratio(
    motion: NDArray[np.float32], own: NDArray[np.bool_], partner: NDArray[np.bool_], after: float = 1.0
) -> float | None:
    """Ratio of 1-4 Hz head pitch energy in the second after the partner's phrase ends to that of other listening.

    None when the clip lacks listening frames of one kind.
    """
    frames = min(len(motion), len(own), len(partner))
    pitch = filtfilt(*butter(2, (1 / 12.5, 4 / 12.5), "band"), motion[:frames, PITCH].astype(np.float64))
    window = np.zeros(frames, bool)
    for end in phrase_ends(partner[:frames]):
        window[end : end + round(after * MOTION_RATE)] = True
    listening = ~own[:frames]
    inside, outside = window & listening, ~window & listening
    if inside.sum() < MOTION_RATE or outside.sum() < MOTION_RATE:
        return None
    return float(np.mean(pitch[inside] ** 2) / np.mean(pitch[outside] ** 2))


def describe(
    motion: NDArray[np.float32], speech: NDArray[np.float32], partner_speech: NDArray[np.float32] | None = None
) -> dict[str, Any]:
    """Statistics of one speaker's motion ``[T,56]`` (TIMAR order) with own and partner's speech at 16 kHz."""
    energy = log_energy(speech)
    jaw = motion[:, JAW_OPENING].astype(np.float64)
    deviation = motion.std(axis=0)
    change = np.diff(motion, axis=0).std(axis=0) / np.maximum(deviation, 1e-9)
    at = {lag: correlation_at(energy, jaw, lag) for lag in range(-MAX_LAG, MAX_LAG + 1)}
    own = speaking(speech)
    frequency, power = welch(motion[:, PITCH], MOTION_RATE, nperseg=min(250, len(motion)))
    statistics: dict[str, Any] = {
        "expression_sd": deviation[EXPRESSION].tolist(),
        "expression_change": change[EXPRESSION].tolist(),
        "expression_mean": motion[:, EXPRESSION].mean(axis=0).tolist(),
        "jaw_mean": float(jaw.mean()),
        "jaw_sd": float(jaw.std()),
        "jaw_change": float(change[JAW_OPENING]),
        "jaw_energy_correlation": at[0],
        "jaw_energy_best": max(at.values()),
        "jaw_energy_lag": max(at, key=lambda lag: at[lag]),
        "head_mean": motion[:, HEAD].mean(axis=0).tolist(),
        "head_sd": deviation[HEAD].tolist(),
        "head_change": change[HEAD].tolist(),
        "head_pitch_1_to_4_hz": float(power[(frequency >= 1) & (frequency < 4)].sum() / max(power.sum(), 1e-12)),
        "speaking": float(own.mean()),
    }
    if partner_speech is not None:
        other = speaking(partner_speech)
        frames = min(len(own), len(other), len(jaw))
        only_partner = other[:frames] & ~own[:frames]
        statistics["jaw_partner_only"] = float(jaw[:frames][only_partner].mean()) if only_partner.any() else None
        statistics["jaw_own"] = float(jaw[:frames][own[:frames]].mean()) if own.any() else None
        statistics["nod_ratio"] = nod_ratio(motion, own, other)
    return statistics


def summarise(people: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and 5, 50, 95 % points over people of each figure of :func:`describe`, one row per figure and index.

    The first ten indices of the expression have their own rows; the others have one row with their mean.
    """
    columns: dict[str, list[float]] = {}
    for one in people:
        for key, value in one.items():
            if isinstance(value, list):
                parts = {f"{key} {i}": v for i, v in enumerate(value[:10])}
                if len(value) > 10:
                    parts[f"{key} 10-{len(value) - 1}"] = float(np.mean(value[10:]))
            else:
                parts = {key: value}
            for name, number in parts.items():
                if number is not None:
                    columns.setdefault(name, []).append(float(number))
    rows = {}
    for name, values in columns.items():
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        rows[name] = {"mean": float(np.mean(values)), "5": float(low), "50": float(middle), "95": float(high)}
    return rows
