"""From frames to a smooth curve: zero-phase smoothing and cubic B-splines, with exact derivatives.

Frames lie at knots of a uniform grid. A symmetric filter turns them into B-spline coefficients; it cannot delay, for
it looks as far ahead as back (:data:`LOOKAHEAD` knots, which the future stamps of a turn's motion allow). The curve
is twice continuously differentiable, its jerk is constant between knots, and it lies within the hull of its
coefficients, so that coefficients within the position limits mean a curve within them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
# Half width of the smoothing filter, in knots.
HALF_WIDTH = 2
# Knots ahead of a time that its value depends on: the basis' two and the filter's.
LOOKAHEAD = HALF_WIDTH + 2
# Knots before the one at or before a time that its value depends on.
LOOKBACK = HALF_WIDTH + 1


@lru_cache(maxsize=32)
def smoothing_filter(bandwidth: float, knot_rate: float) -> Float:
    """Symmetric filter, shape [2 * HALF_WIDTH + 1], that turns frames into B-spline coefficients.

    Least squares fit of the whole curve's frequency response: 1 up to ``bandwidth`` [Hz], 0 well above it.
    """
    frequency = np.linspace(0.0, 0.5, 501)  # in cycles a knot
    passed = frequency * knot_rate <= bandwidth
    stopped = frequency * knot_rate >= 2.0 * bandwidth
    cosines = np.cos(2 * np.pi * frequency[:, None] * np.arange(HALF_WIDTH + 1))
    cosines[:, 1:] *= 2
    basis = (4 + 2 * np.cos(2 * np.pi * frequency)) / 6
    rows = np.concatenate([cosines[passed] * basis[passed, None], 0.5 * cosines[stopped] * basis[stopped, None]])
    aims = np.concatenate([np.ones(passed.sum()), np.zeros(stopped.sum())])
    # Constant frames must stay as they are: the taps' sum is 1 exactly.
    reduced = rows[:, 1:] - rows[:, :1] * np.array([2.0] * HALF_WIDTH)
    taps = np.linalg.lstsq(reduced, aims - rows[:, 0], rcond=None)[0]
    return np.concatenate([taps[::-1], [1 - 2 * taps.sum()], taps])


def coefficients(frames: Float, taps: Float) -> Float:
    """B-spline coefficients of frames [K, J]: shape [K - 2 * HALF_WIDTH, J], the first belongs to frame HALF_WIDTH."""
    count = len(frames) - 2 * HALF_WIDTH
    result = taps[0] * frames[:count]
    for offset in range(1, len(taps)):
        result += taps[offset] * frames[offset : offset + count]
    return result


def evaluate(coefs: Float, interval: NDArray[np.int64], phase: Float, knot_rate: float) -> tuple[Float, ...]:
    """Position, velocity, acceleration and jerk of a uniform cubic B-spline.

    :param coefs: coefficients, shape [K, J].
    :param interval: for each time, the index of the coefficient at the knot at or before it, shape [N]; the
        coefficients ``interval - 1`` to ``interval + 2`` must exist.
    :param phase: position within the interval, within 0 and 1, shape [N].
    :returns: four arrays [N, J].
    """
    u = phase[:, None]
    c0, c1, c2, c3 = (coefs[interval + offset] for offset in (-1, 0, 1, 2))
    d1, d2, d3 = c1 - c0, c2 - c1, c3 - c2
    s1, s2 = d2 - d1, d3 - d2
    jerk = s2 - s1
    position = (c0 + 4 * c1 + c2) / 6 + u * ((d1 + d2) / 2 + u * (s1 / 2 + u * (jerk / 6)))
    velocity = ((d1 + d2) / 2 + u * (s1 + u * (jerk / 2))) * knot_rate
    acceleration = (s1 + u * jerk) * knot_rate**2
    return position, velocity, acceleration, jerk * knot_rate**3
