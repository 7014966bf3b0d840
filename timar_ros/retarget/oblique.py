"""Necks without a closed form: oblique axes or more joints than rotations, by bounded least squares.

Damped Gauss-Newton steps on the rotation error, all frames at once; a joint that reaches a limit stays there for the
rest of that step (a projected active set). Among equally near solutions a descent in the null space of the error takes
the comfortable one: the smallest sum of squared angles, each relative to its joint's range. Checked against
``scipy.optimize.least_squares`` in the tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float = NDArray[np.float64]
ITERATIONS = 40
TOLERANCE = 1e-10
# A smaller angle [rad] counts as reached.
REACHED = 1e-7
# Accuracy of a step [rad] beyond reach: rounding times the inverse of a nearly singular matrix.
TOLERANCE_BEYOND = 1e-6
# Further starting points as shares of the half ranges, for rotations that the descent from neutral did not reach.
RESTARTS = ((0.4, 0.4), (-0.4, -0.4))
# For unreachable rotations an error in roll has less weight than one of gaze: roll must not become yaw.
ROLL_WEIGHT = 0.1


class ObliqueNeck:
    """Angles of a general chain.

    :param axes: unit axes at the neutral pose from the body to the head, shape [J, 3], REP-103.
    :param lower: lowest angle of each joint from neutral, shape [J], rad.
    :param upper: highest angle, shape [J], rad.
    """

    def __init__(self, axes: Float, lower: Float, upper: Float) -> None:
        self.axes, self.lower, self.upper = axes, lower, upper
        self._range = np.maximum(np.maximum(np.abs(lower), np.abs(upper)), 1e-6)
        rank = np.linalg.matrix_rank(axes, tol=1e-6)
        self._weights = np.ones(3) if rank == 3 else np.array([ROLL_WEIGHT, 1.0, 1.0])
        self._cross = np.cross(axes[:, None, :], -np.eye(3))  # of each axis: cross @ v = axis x v
        self._cross_twice = self._cross @ self._cross

    def _forward(self, angles: Float) -> tuple[Float, Float]:
        """The chain's rotation matrices [N, 3, 3] and the axes in the head's own frame, [N, J, 3]."""
        sine, versine = np.sin(angles)[:, :, None, None], 1.0 - np.cos(angles)[:, :, None, None]
        matrices = np.eye(3) + sine * self._cross + versine * self._cross_twice
        after = np.broadcast_to(np.eye(3), (len(angles), 3, 3))
        jacobian = np.empty((len(angles), len(self.axes), 3))
        for j in range(len(self.axes) - 1, -1, -1):
            # A joint's own rotation does not move its axis: only later joints change the axis in the head's frame.
            jacobian[:, j] = self.axes[j] @ after
            after = matrices[:, j] @ after
        return after, jacobian

    def solve(self, wanted: Rotation) -> Float:
        """Angles from neutral, shape [N, J], within the limits, nearest to the wanted rotations."""
        target = wanted.as_matrix().reshape(-1, 3, 3)
        angles, missed = self._descend(target, np.zeros((len(target), len(self.axes))))
        middle, half = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        for start in RESTARTS:
            # A descent that ended at a limit may have taken the wrong branch of two.
            again = np.flatnonzero(missed > REACHED)
            if not len(again):
                break
            sides = np.resize(start, len(self.axes))
            other, missed_other = self._descend(target[again], np.tile(middle + sides * half, (len(again), 1)))
            better = missed_other < missed[again] - 1e-9
            angles[again[better]], missed[again[better]] = other[better], missed_other[better]
        return angles

    def _descend(self, target: Float, angles: Float) -> tuple[Float, Float]:
        """Angles [N, J] after a descent from the given angles, and the remaining weighted error angle [N]."""
        scale = self._range
        missed = np.zeros(len(target))
        left = np.arange(len(target))  # frames that still move
        for iteration in range(ITERATIONS):
            reached, jacobian = self._forward(angles[left])
            error = _rotation_vectors(np.swapaxes(reached, 1, 2) @ target[left]) * self._weights
            missed[left] = np.linalg.norm(error, axis=1)
            weighted = np.swapaxes(jacobian, 1, 2) * self._weights[None, :, None] * scale  # [N, 3, J], in ranges
            comfort = 0.5 if iteration < ITERATIONS - 8 else 0.0
            step = self._step(weighted, error, angles[left] / scale, comfort)
            moved = np.clip(angles[left] + scale * step, self.lower, self.upper)
            enough = np.where(missed[left] > REACHED, TOLERANCE_BEYOND, TOLERANCE)
            moving = np.abs(moved - angles[left]).max(axis=1) >= enough
            angles[left] = moved
            left = left[moving]
            if not len(left):
                break
        return angles, missed

    def _step(self, jacobian: Float, error: Float, angles: Float, comfort: float) -> Float:
        """One damped step in units of ranges, [N, J], with joints held that would leave their limits."""
        lower, upper = self.lower / self._range, self.upper / self._range
        free, held, result = np.ones(angles.shape, dtype=bool), np.zeros(angles.shape), np.empty_like(angles)
        left = np.arange(len(angles))  # frames in which the last try had to hold another joint
        while len(left):
            at, active = angles[left], jacobian[left] * free[left][:, None, :]
            rest = (error[left] - _times(jacobian[left], held[left]))[:, :, None]
            pull = (-comfort * at * free[left])[:, :, None]
            across = np.swapaxes(active, 1, 2)
            solved = np.linalg.solve(active @ across + 1e-9 * np.eye(3), rest - active @ pull)
            step = (pull + across @ solved)[:, :, 0] * free[left] + held[left]
            limit = np.maximum(1.0, np.max(np.abs(step), axis=1, keepdims=True) / 0.5)
            step = np.where(free[left], step / limit, step)
            result[left] = step
            after = at + step
            out = free[left] & ((after < lower - 1e-12) | (after > upper + 1e-12))
            held[left] = np.where(out, np.clip(after, lower, upper) - at, held[left])
            free[left] &= ~out
            left = left[out.any(axis=1)]
        return result


def _times(matrices: Float, vectors: Float) -> Float:
    """Matrices [N, I, J] times vectors [N, J]: [N, I]."""
    return np.asarray((matrices @ vectors[:, :, None])[:, :, 0])


def _rotation_vectors(matrices: Float) -> Float:
    """Axis times angle [N, 3] of rotation matrices [N, 3, 3]: scipy's, without its checks."""
    m = matrices
    vectors = 0.5 * np.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], axis=1)
    sine = np.linalg.norm(vectors, axis=1)
    angle = np.arctan2(sine, 0.5 * (m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2] - 1.0))
    result = vectors * np.divide(angle, sine, out=np.ones_like(sine), where=sine > 1e-12)[:, None]
    turned = angle > 3.0  # near half a turn the sine is too small to give the axis
    if turned.any():
        result[turned] = Rotation.from_matrix(m[turned]).as_rotvec()
    return np.asarray(result)
