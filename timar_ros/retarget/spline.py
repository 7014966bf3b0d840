"""From frames to a smooth curve: zero-phase smoothing and cubic B-splines, with exact derivatives.

Frames lie at knots of a uniform grid. A symmetric filter turns them into B-spline coefficients without delay, since it
looks as far ahead as back (:data:`LOOKAHEAD` knots, which the future stamps of a turn's motion allow). The curve is
twice continuously differentiable, its jerk is constant between knots, and it lies within the hull of its coefficients,
so that coefficients within the position limits mean a curve within them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
# Half width of the smoothing filter, in knots.
HALF_WIDTH = 2
# Look-ahead of a value, in knots: the basis' two and the filter's.
LOOKAHEAD = HALF_WIDTH + 2
# Look-back of a value, in knots before the knot at or before its time.
LOOKBACK = HALF_WIDTH + 1
# Knots on each side of an excess that are calmed by the same amount; another two fade out.
CALM_REACH = 2
# Share of the limits for calmed motion.
CALM_SHARE = 0.9


def calm_width(acceleration: float, knot_rate: float) -> int:
    """Half width [knots] of the local mean towards which motion beyond an acceleration limit [rad/s^2] is calmed.

    Half a period of the fastest sway of a quarter of a radian that the limit allows: faster motion averages out.
    """
    frequency = np.sqrt(acceleration / 0.25) / (2 * np.pi)
    return int(np.clip(round(0.5 * knot_rate / frequency), 5, 16))


def calm_margin(width: int) -> int:
    """Knots that calming looks ahead and back: the mean, a third difference's coefficients, reach and fading."""
    return width + 3 + CALM_REACH + 2


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
    # Constant frames must stay unchanged: the taps' sum is exactly 1.
    reduced = rows[:, 1:] - rows[:, :1] * np.array([2.0] * HALF_WIDTH)
    taps = np.linalg.lstsq(reduced, aims - rows[:, 0], rcond=None)[0]
    return np.concatenate([taps[::-1], [1 - 2 * taps.sum()], taps])


def calm(coefs: Float, largest: tuple[Float, Float, Float], width: int) -> Float:
    """Make motion smaller, not late, where it is too fast.

    Where differences of the coefficients [K, J] exceed ``largest`` (of the first, second and third difference, each
    [J]), they move towards their local mean of half width ``width``, only as far as needed; elsewhere they stay exactly
    unchanged. The result has ``calm_margin(width)`` fewer rows at either end. It may still exceed the limits a little,
    where the mean itself does.
    """
    margin = calm_margin(width)
    result = coefs[margin : len(coefs) - margin]
    if all((np.abs(np.diff(coefs, order, axis=0)) <= limit).all() for order, limit in enumerate(largest, start=1)):
        return result
    inner = coefs[width : len(coefs) - width]
    window = np.hanning(2 * width + 3)[1:-1]
    mean = np.zeros_like(inner)
    for offset, weight in enumerate(window / window.sum()):
        mean += weight * coefs[offset : offset + len(inner)]
    rest = inner - mean
    share = np.ones_like(inner)
    for order, limit in enumerate(largest, start=1):
        of_mean, of_rest = np.diff(mean, order, axis=0), np.diff(rest, order, axis=0)
        room = np.maximum(CALM_SHARE * limit - np.abs(of_mean), 0.0)
        excess = np.abs(of_mean + of_rest) > limit
        needed = np.where(excess, np.minimum(room / np.maximum(np.abs(of_rest), 1e-12), 1.0), 1.0)
        for offset in range(order + 1):  # an excess belongs to all coefficients that make it
            part = share[offset : offset + len(needed)]
            np.minimum(part, needed, out=part)
    low = share
    for offset in range(1, CALM_REACH + 1):
        low = np.minimum(low, np.minimum(_shifted(share, offset), _shifted(share, -offset)))
    smooth = (_shifted(low, -2) + 2 * _shifted(low, -1) + 3 * low + 2 * _shifted(low, 1) + _shifted(low, 2)) / 9
    cut = slice(margin - width, len(inner) - (margin - width))
    return np.where(smooth[cut] < 1.0, mean[cut] + smooth[cut] * rest[cut], result)


def _shifted(values: Float, offset: int) -> Float:
    """Rows moved by ``offset``, the edge rows repeated."""
    index = np.clip(np.arange(len(values)) + offset, 0, len(values) - 1)
    return np.asarray(values[index])


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
