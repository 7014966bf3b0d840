"""Comparison of two runs of one conversation: differences with confidence intervals, paired by turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timar_ros.bags.recording import Recording
from timar_ros.errors import UserError
from timar_ros.evaluation.metrics import conversation_signals
from timar_ros.motion import EXPRESSION, HEAD, JAW, JAW_OPENING, MOTION_RATE

Floats = NDArray[np.float64]
RESAMPLES = 10_000

#: Metrics of each turn: label, unit, and the factor to that unit.
TURN_METRICS: dict[str, tuple[str, str, float]] = {
    "response": ("Turn → motion", "ms", 1e3),
    "head_speed": ("Head speed", "°/s", 180 / np.pi),
    "jaw_speed": ("Jaw speed", "°/s", 180 / np.pi),
    "expression_speed": ("Expression change", "1/s", 1.0),
    "head_jerk": ("Head jerk, RMS", "rad/s³", 1.0),
    "mouth_open": ("Jaw opening, mean", "rad", 1.0),
    "truth_exp": ("Squared error to the truth, expression", "", 1.0),
    "truth_jaw": ("Squared error to the truth, jaw", "10⁻³", 1e3),
    "truth_pose": ("Squared error to the truth, head", "10⁻³", 1e3),
}


@dataclass(frozen=True)
class Difference:
    """A metric's mean in both runs, and the mean of B - A over turns with its 95 % interval, in the metric's unit."""

    key: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    turns: int

    @property
    def certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def by_turn(recording: Recording, truth: NDArray[np.float32] | None = None) -> dict[str, dict[int, float]]:
    """Every metric of :data:`TURN_METRICS` by turn number; turns without motion are left out.

    :raises UserError: when the recording has no turns with motion.
    """
    motion = recording.agent_motion
    if motion is None or not recording.turns:
        raise UserError(f"{recording.path} has no turns with motion to compare")
    frames = motion.at_rate(recording.seconds)
    found: dict[str, dict[int, float]] = {key: {} for key in TURN_METRICS}
    for turn in recording.turns:
        first = round(turn.start * MOTION_RATE)
        part = frames[first : first + round(turn.duration * MOTION_RATE)]
        if np.isnan(turn.moved) or len(part) < 4 or not np.isfinite(part).all():
            continue
        number = turn.number
        found["response"][number] = turn.moved - turn.heard
        for key, columns in (("head", HEAD), ("jaw", JAW), ("expression", EXPRESSION)):
            found[f"{key}_speed"][number] = float(conversation_signals.speed(part[:, columns], MOTION_RATE).mean())
        found["head_jerk"][number] = float(
            np.sqrt(np.mean(np.square(conversation_signals.jerk(part[:, HEAD], MOTION_RATE))))
        )
        found["mouth_open"][number] = float(part[:, JAW_OPENING].mean())
        if truth is not None and first + len(part) <= len(truth):
            squared = np.square(part.astype(np.float64) - truth[first : first + len(part)])
            for key, columns in (("exp", EXPRESSION), ("jaw", JAW), ("pose", HEAD)):
                found[f"truth_{key}"][number] = float(squared[:, columns].mean())
    return {key: values for key, values in found.items() if values}


def compare(
    a: Recording, b: Recording, truth: NDArray[np.float32] | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> list[Difference]:
    """Differences of B from A over the turns that both have, by paired bootstrap (percentile intervals).

    :param seed: the same seed gives the same intervals.
    :raises UserError: when the runs have fewer than two turns in common.
    """
    first, second = by_turn(a, truth), by_turn(b, truth)
    groups = []
    generator = np.random.default_rng(seed)
    for key in TURN_METRICS:
        numbers = sorted(first.get(key, {}).keys() & second.get(key, {}).keys())
        if len(numbers) < 2:
            continue
        one = np.array([first[key][number] for number in numbers])
        other = np.array([second[key][number] for number in numbers])
        low, high = bootstrap(other - one, generator, resamples)
        groups.append(
            Difference(
                key, float(one.mean()), float(other.mean()), float((other - one).mean()), low, high, len(numbers)
            )
        )
    if not groups:
        raise UserError(f"{a.path} and {b.path} have fewer than two turns in common: are they of one conversation?")
    return groups


def bootstrap(
    values: Floats, generator: np.random.Generator, resamples: int = RESAMPLES, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of paired differences, [n]."""
    picks = generator.integers(0, len(values), (resamples, len(values)))
    means = values[picks].mean(axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, (tail, 100 - tail))
    return float(low), float(high)
