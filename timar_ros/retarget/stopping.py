"""The fastest stop of a joint within its acceleration and jerk, in closed form, and whether it stays in the range.

A state is *safe* when the fastest stop from it keeps the position and velocity limits. Every later state of that stop
is safe too, so a follower that moves only to safe states can always stop in time: therefore the limits hold for any
input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
# A remaining velocity at acceleration 0 below this share of the velocity is only rounding.
ROUNDING = 1e-12
Phases = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def stop_phases(velocity: float, acceleration: float, limit: float, jerk: float) -> Phases:
    """Three phases (duration [s], jerk) of the fastest way to velocity 0 and acceleration 0.

    :param limit: acceleration limit; ``|acceleration| <= limit``.
    """
    sign = _braked(velocity, acceleration, jerk)
    t1, hold, t3 = _durations(sign * velocity, sign * acceleration, limit, jerk)
    return (t1, -sign * jerk), (hold, 0.0), (t3, sign * jerk)


def _braked(velocity: float, acceleration: float, jerk: float) -> float:
    """1 where a positive velocity must be braked, -1 for a negative one.

    On the last ramp of a stop the two terms cancel up to rounding: there the sign of the velocity itself decides.
    """
    settled = velocity + acceleration * abs(acceleration) / (2 * jerk)  # velocity once the acceleration is 0
    if abs(settled) <= ROUNDING * abs(velocity):
        settled = velocity
    return 1.0 if settled > 0 else -1.0


def _durations(v: float, a: float, limit: float, jerk: float) -> tuple[float, float, float]:
    """Durations of the three phases where a positive velocity is braked."""
    peak = math.sqrt(max(jerk * v + a * a / 2, 0.0))
    hold = 0.0
    if peak > limit:
        peak, hold = limit, (v + a * a / (2 * jerk) - limit * limit / jerk) / limit
    return max(a + peak, 0.0) / jerk, max(hold, 0.0), peak / jerk


def stop_samples(state: Sequence[float], limit: float, jerk: float, times: Sequence[float]) -> Float:
    """Position, velocity and acceleration at ascending times of the fastest stop: [N, 3]; at rest after its end."""
    p, v, a = state
    rows = []
    begin, index = 0.0, 0
    for duration, j in stop_phases(v, a, limit, jerk):
        while index < len(times) and times[index] < begin + duration:
            t = times[index] - begin
            rows.append((p + t * (v + t * (a / 2 + t * j / 6)), v + t * (a + t * j / 2), a + t * j))
            index += 1
        p += duration * (v + duration * (a / 2 + duration * j / 6))
        v += duration * (a + duration * j / 2)
        a += duration * j
        begin += duration
    rows.extend([(p, 0.0, 0.0)] * (len(times) - index))
    return np.array(rows)


def stop_reach(v: Float, a: Float, limit: Float, jerk: Float) -> tuple[Float, Float]:
    """How far the fastest stop from each state goes below and above its start, both >= 0; shapes broadcast.

    Exact in the direction in which the joint must be braked; an upper bound in the other direction, if it first moves
    there.
    """
    settled = v + a * np.abs(a) / (2 * jerk)
    sign = np.where(np.where(np.abs(settled) <= ROUNDING * np.abs(v), v, settled) > 0, 1.0, -1.0)  # as in _braked
    v, a = sign * v, sign * a
    peak = np.sqrt(np.maximum(jerk * v + a * a / 2, 0.0))
    clipped = np.minimum(peak, limit)
    hold = np.where(peak > limit, np.maximum(v + a * a / (2 * jerk) - limit * limit / jerk, 0.0) / limit, 0.0)
    t1 = np.maximum(a + clipped, 0.0) / jerk
    p1 = t1 * (v + t1 * (a / 2 - t1 * jerk / 6))
    v1 = v + t1 * (a - t1 * jerk / 2)
    p2 = p1 + hold * (v1 - hold * clipped / 2)
    v2 = v1 - hold * clipped
    t3 = clipped / jerk
    p3 = p2 + t3 * (v2 - t3 * clipped / 2 + t3 * t3 * jerk / 6)
    ahead = np.maximum(p3, 0.0)
    behind = np.maximum(-v, 0.0) * t1  # the velocity changes its sign within the first phase
    return np.where(sign > 0, behind, ahead), np.where(sign > 0, ahead, behind)


def stop_range(p: float, v: float, a: float, limit: float, jerk: float) -> tuple[float, float]:
    """Lowest and highest position of the fastest stop from one state: :func:`stop_reach` without arrays."""
    sign = _braked(v, a, jerk)
    v, a = sign * v, sign * a
    t1, hold, t3 = _durations(v, a, limit, jerk)
    p1 = t1 * (v + t1 * (a / 2 - t1 * jerk / 6))
    v1, a1 = v + t1 * (a - t1 * jerk / 2), a - t1 * jerk
    p2, v2 = p1 + hold * (v1 + hold * a1 / 2), v1 + hold * a1
    ahead = max(p2 + t3 * (v2 + t3 * (a1 / 2 + t3 * jerk / 6)), 0.0)
    behind = max(-v, 0.0) * t1
    return (p - behind, p + ahead) if sign > 0 else (p - ahead, p + behind)
