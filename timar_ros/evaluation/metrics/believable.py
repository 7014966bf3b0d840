"""Figures of a believable head, which a still head, a copy or an exaggerating head cannot meet.

All functions take arrays: motion ``[T, 56]`` at 25 Hz (TIMAR's order, rad) and speech at 16 kHz. NaN: nothing to
measure. :data:`BARS` holds the bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from scipy.ndimage import uniform_filter1d

from timar_ros.data.motion_statistics import correlation_at
from timar_ros.evaluation.metrics.behaviour import AFTER, phrase_ends
from timar_ros.evaluation.metrics.conversation_signals import Flags, Floats, lip_offset, loudness, nods, voice_activity
from timar_ros.evaluation.metrics.paper_metrics import frechet_distance
from timar_ros.motion import EXPRESSION, HEAD, JAW, JAW_OPENING, MOTION_RATE, PITCH

# Bands of the spectrum's shape [Hz].
BANDS = ((0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0))
# Lags of the jaw [frames] at which lips count as on time: a jaw may lead the sound.
LIP_LAGS = range(-3, 2)
# Time to close a mouth after speech, and to open it before speech [frames].
CLOSING, OPENING = 10, 5
# Smallest visible nod [rad].
VISIBLE_NOD = 0.03
# Frequency [Hz] above which a head's movement is chance and reactions, and below which it is posture.
SEED_CUT = 0.7
SLOW = 0.35


@dataclass(frozen=True)
class Bar:
    """A figure's name, its row in the table, and its allowed values."""

    key: str
    title: str
    low: float = -math.inf
    high: float = math.inf
    factor: float = 1.0
    digits: int = 2

    @property
    def text(self) -> str:
        """The bar's text for the table."""
        low, high = (f"{value * self.factor:.{self.digits}f}" for value in (self.low, self.high))
        if math.isinf(self.low) and math.isinf(self.high):
            return ""
        if math.isinf(self.low):
            return f"≤ {high}"
        return f"≥ {low}" if math.isinf(self.high) else f"{low} … {high}"

    def holds(self, value: float) -> bool:
        """Whether a figure is within the bar; never for NaN."""
        return self.low <= value <= self.high


BARS = (
    Bar("lip_offset_low", "lip offset, earliest voice (ms)", -0.13, 0.03, 1e3, 0),
    Bar("lip_offset", "lip offset, mean (ms)", -0.13, 0.03, 1e3, 0),
    Bar("lip_offset_high", "lip offset, latest voice (ms)", -0.13, 0.03, 1e3, 0),
    Bar("lips", "lips r, lags -3 … +1", 0.45, 0.85),
    Bar("shut", "jaw silent / talking", high=0.15),
    Bar("dial", "sd at dial +1 / sd at dial -1", low=1.8),
    Bar("dial_monotone", "dial monotone (share of people)", low=1.0),
    Bar("adapts", "log-sd r with people, 10 s of example", low=0.5),
    Bar("shape", "shape error after one gain (octaves)", high=0.6),
    Bar("speed_cv", "CV of speed", 0.75, 1.05),
    Bar("slow", "share of time below 0.35 rms", 0.25, 0.45),
    Bar("seeds_x", "seed r above 0.7 Hz, pitch", high=0.6),
    Bar("seeds_y", "seed r above 0.7 Hz, yaw", high=0.6),
    Bar("seeds_z", "seed r above 0.7 Hz, roll", high=0.6),
    Bar("nods_more", "visible nods after phrases minus elsewhere", low=0.25),
    Bar("nods_elsewhere", "visible nods elsewhere", high=0.10),
    Bar("own_loudness", "own loudness and head speed, r", 0.15, 0.6),
    Bar("talking", "head speed talking / silent", 1.2, 2.2),
    Bar("noise_lips", "lips r in noise at 0 dB", low=0.3),
    Bar("music_jaw", "mean jaw, music alone (mrad)", high=0.03, factor=1e3, digits=0),
    Bar("song_jaw", "mean jaw, a song (mrad)", high=0.03, factor=1e3, digits=0),
    Bar("seam", "step at turns' borders / inside", high=1.5),
    Bar("head_sd", "head sd, mean of axes (mrad)", factor=1e3, digits=0),
    Bar("fd_exp", "FD expression"),
    Bar("fd_jaw", "FD jaw, 1e3", factor=1e3),
    Bar("fd_pose", "FD pose, 1e2", factor=1e2),
    Bar("fd_pose_equal", "FD pose at equal gain, 1e2", factor=1e2),
    Bar("broken", "frames that are not finite", high=0.0, digits=0),
)


@dataclass(frozen=True)
class Talk:
    """One conversation: ``user`` and ``agent`` speech, the user's motion if tracked, the agent's own if known."""

    name: str
    user: Floats
    agent: Floats
    user_motion: Floats | None = None
    truth: Floats | None = None

    @property
    def frames(self) -> int:
        """Motion frames of the shorter of both sounds."""
        return min(len(self.user), len(self.agent)) // 640


def lips(agent: Floats, motion: Floats, lags: Sequence[int] = LIP_LAGS) -> float:
    """Best correlation of the jaw with the voice's smoothed level within ``lags`` (below 0: the jaw leads)."""
    count = min(len(agent) // 640, len(motion))
    level = uniform_filter1d(np.maximum(loudness(agent)[:count], -60.0), 5)
    if count < MOTION_RATE or level.std() < 1e-3 or motion[:count, JAW_OPENING].std() < 1e-6:
        return float("nan")
    return max(correlation_at(level, motion[:count, JAW_OPENING], lag) for lag in lags)


def shut(talks: Flags, motion: Floats) -> float:
    """Mean jaw in silence, 0.4 s after speech to 0.2 s before it, divided by that while talking."""
    spoken = talks.copy()
    for lag in range(1, CLOSING + 1):
        spoken[lag:] |= talks[:-lag]
    for lead in range(1, OPENING + 1):
        spoken[:-lead] |= talks[lead:]
    silent, open_ = motion[~spoken, JAW_OPENING], motion[talks, JAW_OPENING]
    if min(len(silent), len(open_)) < MOTION_RATE:
        return float("nan")
    return float(silent.mean() / max(float(open_.mean()), 1e-4))


def band_power(motion: Floats) -> NDArray[np.float64]:
    """Variance of the head's angles within :data:`BANDS` ``[4, 3]`` [rad²]."""
    head = signal.detrend(np.asarray(motion[:, HEAD], np.float64), axis=0, type="constant")
    window = np.hanning(len(head))[:, None]
    frequency = np.fft.rfftfreq(len(head), 1 / MOTION_RATE)
    power = np.square(np.abs(np.fft.rfft(head * window, axis=0)))
    power *= head.var(0) / np.maximum(power.sum(0), 1e-30)
    return np.stack([power[(frequency >= low) & (frequency < high)].sum(0) for low, high in BANDS])


def shape_error(spectrum: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Root mean square difference, in octaves of amplitude, of twelve cells of power after one common gain."""
    octaves = 0.5 * np.log2(np.maximum(spectrum, 1e-12) / np.maximum(truth, 1e-12))
    return float((octaves - octaves.mean()).std())


def speeds(motion: Floats) -> NDArray[np.float64]:
    """Speed of the head [rad/s], ``[T - 1]``."""
    return np.asarray(np.linalg.norm(np.diff(np.asarray(motion[:, HEAD], np.float64), axis=0), axis=1) * MOTION_RATE)


def speed_spread(motion: Floats) -> tuple[float, float]:
    """Coefficient of variation of the head's speed, and the share of time below 0.35 of its root mean square."""
    speed = speeds(motion)
    if len(speed) < 4 * MOTION_RATE or speed.mean() < 1e-6:
        return float("nan"), float("nan")
    return float(speed.std() / speed.mean()), float((speed < SLOW * np.sqrt(np.square(speed).mean())).mean())


def with_loudness(agent: Floats, talks: Flags, motion: Floats) -> tuple[float, float]:
    """Correlation of own loudness with the head's speed up to 0.3 s later, and speed ratio of talking to silence."""
    speed = speeds(motion)
    smooth = uniform_filter1d(speed, 7)
    level = uniform_filter1d(np.maximum(loudness(agent)[: len(motion)], -60.0)[1:], 7)
    count = min(len(smooth), len(level))
    follows = float("nan")
    if count > 4 * MOTION_RATE and level[:count].std() > 1e-3 and smooth[:count].std() > 1e-9:
        follows = max(correlation_at(level[:count], smooth[:count], lag) for lag in range(9))
    now, then = speed[talks[1:]], speed[~talks[1:]]
    if min(len(now), len(then)) < MOTION_RATE:
        return follows, float("nan")
    return follows, float(now.mean() / max(float(then.mean()), 1e-9))


def seed_correlation(one: Floats, other: Floats) -> NDArray[np.float64]:
    """Correlation of two seeds' heads above 0.7 Hz, by axis ``[3]``; 1 for an axis that does not move there."""
    high = signal.butter(2, SEED_CUT, "high", fs=MOTION_RATE, output="sos")
    first, second = (signal.sosfiltfilt(high, np.asarray(x[:, HEAD], np.float64), axis=0) for x in (one, other))
    scale = np.sqrt(np.square(first).sum(0) * np.square(second).sum(0))
    return np.asarray(np.where(scale > 1e-12, (first * second).sum(0) / np.maximum(scale, 1e-12), 1.0))


@dataclass(frozen=True)
class Nods:
    """Numbers of seconds after the partner's phrases and of other listening seconds, with and without a visible nod."""

    ends: int = 0
    answered: int = 0
    others: int = 0
    nodded: int = 0

    def __add__(self, other: Nods) -> Nods:
        """Counts of both."""
        return Nods(
            self.ends + other.ends,
            self.answered + other.answered,
            self.others + other.others,
            self.nodded + other.nodded,
        )

    @property
    def after(self) -> float:
        """Share of phrases that a nod answers."""
        return self.answered / self.ends if self.ends else float("nan")

    @property
    def elsewhere(self) -> float:
        """Share of other seconds that hold a nod."""
        return self.nodded / self.others if self.others else float("nan")


def visible_nods(motion: Floats, talks: Flags, heard: Flags) -> Nods:
    """Nods of 1.7° or more in the second after the partner's phrases, and in other seconds while listening."""
    peaks = np.zeros(len(motion), bool)
    # A nod of several swings counts at its beginning.
    peaks[[first for first, _ in nods(motion[:, PITCH], smallest=VISIBLE_NOD)]] = True
    near, ends, answered = np.zeros(len(motion), bool), 0, 0
    for end in phrase_ends(heard):
        window = slice(end, end + AFTER)
        near[window] = True
        if end + AFTER <= len(motion) and talks[window].mean() < 0.3:
            ends += 1
            answered += bool(peaks[window].any())
    others = nodded = 0
    frame = 0
    while frame + AFTER <= len(motion):
        window = slice(frame, frame + AFTER)
        if near[window].any() or talks[window].any():
            frame += 1
            continue
        others += 1
        nodded += bool(peaks[window].any())
        frame += AFTER
    return Nods(ends, answered, others, nodded)


def distances(motion: Floats, truth: Floats) -> dict[str, float]:
    """Fréchet distances of frames to the truth's; for the head pose also after scaling it to the truth's size."""
    count = min(len(motion), len(truth))
    one, other = np.asarray(motion[:count], np.float64), np.asarray(truth[:count], np.float64)
    head, real = one[:, HEAD] - one[:, HEAD].mean(0), other[:, HEAD] - other[:, HEAD].mean(0)
    gain = np.sqrt(np.square(real).sum() / max(np.square(head).sum(), 1e-12))
    return {
        "fd_exp": frechet_distance(one[:, EXPRESSION], other[:, EXPRESSION]),
        "fd_jaw": frechet_distance(one[:, JAW], other[:, JAW]),
        "fd_pose": frechet_distance(one[:, HEAD], other[:, HEAD]),
        "fd_pose_equal": frechet_distance(gain * head, real),
    }


def head_sd(motion: Floats) -> float:
    """Geometric mean of the axes' deviations [rad]."""
    return float(np.exp(np.log(np.maximum(motion[:, HEAD].std(0), 1e-6)).mean()))


def offset(agent: Floats, motion: Floats) -> float:
    """How much later than the sound the jaw moves [s]; see `conversation_signals.lip_offset`."""
    return lip_offset(agent, motion[:, JAW_OPENING])[0]


def activity(talk: Talk, frames: int) -> tuple[Flags, Flags]:
    """Whether the agent and the user speak, each ``[frames]``."""
    return voice_activity(talk.agent)[:frames], voice_activity(talk.user)[:frames]
