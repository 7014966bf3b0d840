"""A head's behaviour from signals: voice activity, nods, lips and sound, jerk, seams.

All functions take arrays at the motion rate (25 Hz) unless said otherwise; angles in rad, times in s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from timar_ros.motion import MODEL_RATE, MOTION_RATE
from timar_ros.streaming.activity import ActivityDetector

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]


def loudness(audio: Floats, rate: int = MODEL_RATE, fps: float = MOTION_RATE) -> NDArray[np.float64]:
    """Level of each frame in dB below full scale (floor -100), [T], over a window of one frame."""
    count = int(len(audio) / rate * fps)
    if not count:
        return np.zeros(0)
    edges = np.round(np.arange(count + 1) * rate / fps).astype(int)
    power = np.add.reduceat(np.square(audio[: edges[-1]], dtype=np.float64), edges[:-1]) / np.diff(edges)
    return 10 * np.log10(np.maximum(power, 1e-10))


def voice_activity(audio: Floats) -> Flags:
    """Which frames of 40 ms hold speech, [T], by the pipeline's own detector; for 16 kHz and one speaker's channel."""
    return ActivityDetector().process(np.asarray(audio, np.float32))


def stretches(flags: Flags) -> list[tuple[int, int]]:
    """First frame and end (one past the last) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def lip_offset(
    audio: Floats,
    jaw: Floats,
    speaking: Flags | None = None,
    rate: int = MODEL_RATE,
    fps: float = MOTION_RATE,
    most: float = 0.5,
) -> tuple[float, float, NDArray[np.float64], NDArray[np.float64]]:
    """How much later than the sound the jaw moves.

    Cross-correlates the level of the audio with the jaw's opening (both without their slow parts below 0.5 Hz).

    :param audio: the agent's own audio, [n].
    :param jaw: jaw opening [rad] (FLAME jaw x), [T].
    :param speaking: frames that count, [T]; by default those with speech in the audio.
    :returns: offset [s] (positive: the jaw is late), correlation there, and the whole curve as lags [s] and values;
        NaN with less than a second of speech or a still jaw.
    """
    level = np.maximum(loudness(audio, rate, fps), -60.0)
    count = min(len(level), len(jaw))
    span = round(most * fps)
    # A level belongs to its frame's middle, motion to its frame's beginning: half a frame lies between them.
    lags: NDArray[np.float64] = (np.arange(-span, span + 1, dtype=np.float64) - 0.5) / fps
    nothing = float("nan"), float("nan"), lags, np.full(len(lags), np.nan)
    if speaking is None:
        speaking = voice_activity(audio)
    counts = speaking[:count] & np.isfinite(jaw[:count])
    if counts.sum() < fps or count < 4 * span:
        return nothing
    smooth = signal.butter(2, (0.5, 0.9 * fps / 2), "band", fs=fps, output="sos")
    sound = signal.sosfiltfilt(smooth, level[:count])
    opening = signal.sosfiltfilt(smooth, np.nan_to_num(jaw[:count], nan=float(np.nanmean(jaw[:count]))))
    values = np.full(len(lags), np.nan)
    frames = np.flatnonzero(counts)
    for index, shift in enumerate(range(-span, span + 1)):
        at = frames[(frames + shift >= 0) & (frames + shift < count)]
        one, other = sound[at], opening[at + shift]
        if len(at) > 2 and one.std() > 1e-9 and other.std() > 1e-9:
            values[index] = np.corrcoef(one, other)[0, 1]
    if not np.isfinite(values).any():
        return nothing
    best = int(np.nanargmax(values))
    return float(lags[best] + _vertex(values, best) / fps), float(values[best]), lags, values


def _vertex(values: NDArray[np.float64], best: int) -> float:
    """Peak of the parabola through a maximum and its neighbours, in samples from the maximum."""
    if best in (0, len(values) - 1):
        return 0.0
    before, here, after = values[best - 1 : best + 2]
    bend = before - 2 * here + after
    return float(0.5 * (before - after) / bend) if np.isfinite(bend) and bend < -1e-12 else 0.0


def nods(pitch: Floats, fps: float = MOTION_RATE, smallest: float = 0.03) -> list[tuple[int, int]]:
    """Nods as first and last frame: swings of the head's pitch of 1 to 5 Hz, at least ``smallest`` rad high.

    Swings less than 0.6 s apart are one nod.
    """
    if len(pitch) < 16:
        return []
    band = signal.butter(2, (0.8, min(5.0, 0.45 * fps)), "band", fs=fps, output="sos")
    swing = signal.sosfiltfilt(band, np.nan_to_num(np.asarray(pitch, np.float64)))
    peaks, _ = signal.find_peaks(swing, prominence=smallest)
    groups: list[tuple[int, int]] = []
    for peak in peaks:
        if groups and peak - groups[-1][1] < 0.6 * fps:
            groups[-1] = (groups[-1][0], int(peak))
        else:
            groups.append((int(peak), int(peak)))
    return groups


def speed(values: Floats, fps: float) -> NDArray[np.float64]:
    """Norm of the change per second of each step, [T - 1]; NaN where an end is unknown."""
    return np.asarray(np.linalg.norm(np.diff(np.asarray(values, np.float64), axis=0), axis=1) * fps)


def jerk(values: Floats, fps: float) -> NDArray[np.float64]:
    """Third derivative by differences, [T - 3, J]."""
    return np.diff(np.asarray(values, np.float64), n=3, axis=0) * fps**3


def seam_ratio(motion: Floats, frames_per_turn: int, first: int = 0) -> float:
    """Mean step at turn boundaries divided by the mean step inside turns (1: no seam); NaN with less than two turns.

    :param motion: frames [T, D].
    :param first: index of a frame that begins a turn.
    """
    steps = np.linalg.norm(np.diff(np.asarray(motion, np.float64), axis=0), axis=1)
    border = (np.arange(1, len(motion)) - first) % frames_per_turn == 0
    inside, across = steps[~border], steps[border]
    inside, across = inside[np.isfinite(inside)], across[np.isfinite(across)]
    if not len(across) or not len(inside) or inside.mean() < 1e-12:
        return float("nan")
    return float(across.mean() / inside.mean())
