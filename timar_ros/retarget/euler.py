"""Chains of rotations with a closed form: Euler angles about a neck's own axes, in the neck's own order."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float = NDArray[np.float64]
# Order of missing axes after the neck's own: roll (x) last, so that the gaze is kept.
MISSING_ORDER = (2, 1, 0)


class EulerChain:
    """Angles about three axes, in closed form; neighbouring axes are orthogonal.

    With ``a1`` turned out of the orthogonal triple by ``tilt`` about ``a2`` (a neck mounted at a slant, as Reachy 2's),
    ``rot(a1, t1) = rot(a2, tilt) rot(a1', t1) rot(a2, -tilt)``, so that Euler angles in the triple's basis remain.
    """

    def __init__(self, second: Float, third: Float, tilt: float) -> None:
        self._tilt = tilt
        self._basis = Rotation.from_matrix(np.stack([np.cross(second, third), second, third], axis=1))
        self._upright = Rotation.from_rotvec(-tilt * second)

    @classmethod
    def of(cls, axes: Float) -> EulerChain | None:
        """The chain of one to three signed axes [J, 3], completed by the missing ones; None without a closed form."""
        rows = list(axes)
        for missing in MISSING_ORDER:
            if len(rows) < 3 and all(abs(row[missing]) < 1e-9 for row in rows):
                rows.append(np.eye(3)[missing])
        if len(rows) != 3 or abs(rows[0] @ rows[1]) > 1e-9 or abs(rows[1] @ rows[2]) > 1e-9:
            return None
        first, second, third = rows
        straight = np.cross(second, third)
        tilt = float(np.arctan2(np.cross(straight, first) @ second, straight @ first))
        # If the first axis is nearly in line with the third, gimbal lock lies in the middle of the range.
        return cls(second, third, tilt) if abs(np.cos(tilt)) > 0.5 else None

    def angles(self, wanted: Rotation) -> tuple[Float, Float]:
        """Both sets of angles, each [N, 3] and within -pi and pi."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gimbal lock: any of the equivalent solutions is good
            turned = self._basis.inv() * (self._upright * wanted) * self._basis
            first = np.atleast_2d(turned.as_euler("XYZ"))
        second = np.stack([first[:, 0] + np.pi, np.pi - first[:, 1], first[:, 2] + np.pi], axis=1)
        first = first + np.array([0.0, self._tilt, 0.0])
        second = second + np.array([0.0, self._tilt, 0.0])
        return _wrapped(first), _wrapped(second)


def _wrapped(angles: Float) -> Float:
    return (angles + np.pi) % (2 * np.pi) - np.pi


class ParallelJoints:
    """Groups of neighbouring joints about the same axis: only the sum of a group's angles turns the head.

    :param axes: signed unit axes at the neutral pose, shape [J, 3].
    :param lower: lowest angle of each joint from neutral, shape [J], rad.
    :param upper: highest angle, shape [J], rad.
    """

    def __init__(self, axes: Float, lower: Float, upper: Float) -> None:
        signs, groups = np.ones(len(axes)), [[0]]
        for joint in range(1, len(axes)):
            along = float(axes[joint] @ axes[groups[-1][0]])
            if abs(along) > 1 - 1e-12:
                signs[joint] = np.sign(along)
                groups[-1].append(joint)
            else:
                groups.append([joint])
        self._signs, self._groups, self._limits = signs, groups, (lower, upper)
        self._lower, self._upper = np.where(signs > 0, lower, -upper), np.where(signs > 0, upper, -lower)
        self._ranges = np.maximum(np.abs(lower), np.abs(upper))
        self.axes = np.array([axes[group[0]] for group in groups])
        self.lower = np.array([self._lower[group].sum() for group in groups])
        self.upper = np.array([self._upper[group].sum() for group in groups])

    def share(self, sums: Float) -> Float:
        """The most comfortable angles [N, J] for sums [N, groups], within ``lower`` and ``upper``.

        Most comfortable: the smallest sum of squares, each angle relative to its joint's range.
        """
        result = np.empty((len(sums), len(self._signs)))
        for column, group in enumerate(self._groups):
            left, free = sums[:, column].copy(), np.ones((len(sums), len(group)), dtype=bool)
            angles = np.zeros((len(sums), len(group)))
            for _ in group:  # each round, one more joint may reach its limit
                weights = free * self._ranges[group] ** 2
                part = weights * (left / np.maximum(weights.sum(axis=1), 1e-300))[:, None]
                angles = np.where(free, part, angles)
                clipped = np.clip(angles, self._lower[group], self._upper[group])
                out = free & (np.abs(clipped - angles) > 1e-15)
                if not out.any():
                    break
                angles = np.where(out, clipped, angles)
                free &= ~out
                left = sums[:, column] - np.where(free, 0.0, angles).sum(axis=1)
            result[:, group] = angles * self._signs[group]
        return np.clip(result, *self._limits)
