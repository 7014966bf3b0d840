"""From the face's actions to FLAME's 50 expression coefficients.

Neighbouring coefficients of tracked faces move together (in real clips they correlate by 0.3–0.8), since a few muscles
drive many coefficients. So each coefficient mixes eleven actions and has some movement of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from timar_ros.motion import MOTION_RATE
from timar_ros.synth.manner import ACTIONS, Manner

# Mean and deviation of each action over many conversations: open, spread, round, press, smile, brow, blink, think,
# effort, floor, heed.
ACTION_MEAN = np.array([0.55, 0.257, 0.148, 0.019, 0.115, 0.144, 0.049, 0.092, 0.357, 0.506, 0.275])
ACTION_SD = np.array([0.74, 0.304, 0.2, 0.052, 0.315, 0.298, 0.199, 0.269, 0.314, 0.497, 0.315])

# Share of a coefficient's variance that actions explain; the rest is its own movement.
EXPLAINED = 0.72
# Deviation over time that each coefficient is calibrated to: the first ten as tracked, the rest near 0.46.
FIRST_SD = (1.2, 0.5, 0.25, 0.55, 0.5, 0.6, 0.45, 0.5, 0.35, 0.6)
TARGET_SD = np.concatenate([FIRST_SD, 0.46 * (1 + 0.25 * np.sin(1.7 * np.arange(10, 50)))])

LIMIT = 4.0

# Weights of each action in the first ten coefficients, set by hand.
FIRST_MIX = np.array(
    [
        # open spread round press smile brow  blink think effort floor heed
        [0.70, 0.20, -0.10, -0.30, 0.60, 0.00, 0.00, -0.20, 0.35, 0.35, 0.15],
        [-0.40, 0.45, -0.45, 0.10, 0.40, 0.00, 0.10, 0.20, -0.25, -0.20, 0.10],
        [0.30, -0.35, 0.45, 0.00, -0.25, 0.20, -0.10, 0.30, 0.20, 0.35, -0.20],
        [0.75, 0.25, 0.15, -0.35, -0.15, 0.15, 0.00, 0.00, 0.20, 0.20, 0.00],
        [-0.45, 0.20, -0.20, 0.40, 0.35, -0.30, 0.15, -0.20, -0.30, -0.25, 0.25],
        [0.55, -0.15, 0.45, 0.10, 0.40, 0.20, -0.20, 0.00, 0.25, 0.15, 0.10],
        [-0.30, 0.50, 0.25, 0.30, -0.20, 0.45, 0.00, 0.25, -0.15, 0.00, 0.25],
        [-0.55, -0.20, 0.30, 0.35, -0.45, 0.25, 0.25, 0.20, -0.20, -0.15, 0.00],
        [0.15, 0.00, -0.25, -0.10, 0.30, 0.55, -0.50, -0.40, 0.10, 0.20, 0.20],
        [0.45, 0.35, -0.30, -0.30, 0.45, -0.20, -0.35, 0.25, 0.25, 0.15, -0.10],
    ]
)
# The other coefficients' weights, from a fixed seed.
_REST = np.random.default_rng(56).normal(0, 1, (40, ACTIONS)) * np.array(
    [1.2, 1, 1, 0.8, 1, 0.9, 0.6, 0.7, 0.8, 0.9, 0.6]
)
_MIX = np.concatenate([FIRST_MIX, _REST])
MIX = _MIX / np.linalg.norm(_MIX, axis=1, keepdims=True)
# Actions correlate, so mixed variances differ from one: these factors bring each coefficient to its target (measured).
CORRECTION = np.array(
    [
        0.84,
        0.99,
        0.77,
        0.69,
        0.78,
        0.79,
        1.16,
        1.01,
        1.05,
        0.89,
        1.11,
        0.87,
        0.76,
        0.80,
        1.26,
        1.17,
        1.07,
        1.14,
        1.32,
        1.10,
        1.39,
        0.87,
        1.31,
        0.99,
        0.92,
        0.66,
        1.31,
        0.73,
        1.19,
        0.80,
        1.00,
        1.08,
        0.70,
        0.93,
        1.37,
        1.11,
        1.38,
        1.09,
        0.68,
        1.24,
        1.12,
        0.97,
        0.96,
        1.26,
        1.05,
        1.11,
        0.99,
        1.05,
        0.75,
        0.96,
    ]
)


def _own_movement(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Each coefficient's own movement ``[T,50]``, unit deviation: quick and slow wandering and tracking noise."""
    basis = np.zeros((frames, 50))
    for seconds, share in ((0.25, 0.45), (1.5, 0.5)):
        pole = np.exp(-1 / (seconds * MOTION_RATE))
        lead = int(5 * seconds * MOTION_RATE)
        noise = rng.standard_normal((frames + lead, 50))
        basis += np.sqrt(share * (1 - pole**2)) * lfilter([1.0], [1, -pole], noise, axis=0)[lead:]
    return basis + np.sqrt(0.05) * rng.standard_normal((frames, 50))


def expression_of(actions: NDArray[np.float64], manner: Manner, rng: np.random.Generator) -> NDArray[np.float64]:
    """Expression ``[T,50]`` from actions ``[ACTIONS, T]``; each session has a small random offset."""
    normal = ((actions.T - ACTION_MEAN) / ACTION_SD) @ MIX.T
    moved = np.sqrt(EXPLAINED) * CORRECTION * normal + np.sqrt(1 - EXPLAINED) * _own_movement(len(normal), rng)
    today = rng.normal(0, 0.08, 50)
    # Trackers keep to a plausible face: larger values are compressed.
    return np.asarray(LIMIT * np.tanh((manner.neutral + today + TARGET_SD * manner.expression_gain * moved) / LIMIT))
