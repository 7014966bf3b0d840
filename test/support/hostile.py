"""Motion that no head can follow, for tests of the limits."""

from __future__ import annotations

import numpy as np

from timar_ros.motion import JAW, MOTION_SIZE

KINDS = ("noise", "steps", "fast", "wander", "broken", "extremes")


def hostile(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """FLAME frames [count, 56] of one kind.

    ``noise``: white; ``steps``: leaps between poses; ``fast``: ten times as fast as people; ``wander``: far and wide;
    ``broken``: wander with frames that are NaN, infinite or absurd; ``extremes``: between the ends of what is accepted.
    """
    rng = np.random.default_rng(seed)
    frames = np.zeros((count, MOTION_SIZE))
    t = np.arange(count)[:, None] / 25
    if kind == "noise":
        frames = rng.normal(0, 0.6, (count, MOTION_SIZE))
    elif kind == "steps":
        hold = int(rng.integers(2, 30))
        steps = rng.uniform(-1.5, 1.5, (count // hold + 1, 56))
        frames = np.repeat(steps, hold, axis=0)[:count]
    elif kind == "fast":
        frames[:, :] = rng.uniform(0.2, 1.2, 56) * np.sin(
            2 * np.pi * rng.uniform(5, 15, 56) * t + rng.uniform(0, 6, 56)
        )
    elif kind in ("wander", "broken"):
        frames = 1.4 * np.sin(np.cumsum(rng.normal(0, 0.12, (count, MOTION_SIZE)), axis=0))
    elif kind == "extremes":
        frames = rng.choice([-1.4, 1.4], (count, MOTION_SIZE))
        frames[:, JAW] = rng.choice([-0.5, 0.8], (count, 3))
    else:
        raise ValueError(kind)
    if kind == "broken":
        for value in (np.nan, np.inf, -1e9, 1e30):
            rows = rng.random(count) < 0.03
            frames[rows, rng.integers(0, 56)] = value
        frames[rng.random(count) < 0.02] = np.nan
    return frames
