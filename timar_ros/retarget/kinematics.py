"""From a wanted head rotation to the angles of a neck, and back.

The chain is a product of rotations about axes given at the neutral pose: ``R = rot(a1, t1) rot(a2, t2) ...`` from the
body to the head, with ``t = sign * (position - neutral)``. Necks of one to three joints about different principal axes
have a closed form, by Euler angles in the chain's own order (:mod:`timar_ros.retarget.euler`). Axes that a neck lacks
come last in that order, roll after all others: then the face still looks in the right direction, and lost roll never
becomes yaw. All other necks (oblique axes, more joints than needed) use :mod:`timar_ros.retarget.oblique`, except for
rotations that they reach in closed form after joining parallel joints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from timar_ros.retarget.euler import EulerChain, ParallelJoints
from timar_ros.retarget.oblique import ObliqueNeck
from timar_ros.retarget.profile import NeckJoint, RobotProfile
from timar_ros.retarget.rotations import angle_between

Float = NDArray[np.float64]


def forward_rotation(neck: Sequence[NeckJoint], positions: ArrayLike) -> Rotation:
    """The head's rotation relative to its neutral pose, REP-103.

    :param positions: joint positions, shape [N, J_neck] (or [J_neck]), rad.
    :returns: N rotations (or one).
    """
    q = np.asarray(positions, dtype=np.float64)
    rotation = Rotation.identity() if q.ndim == 1 else Rotation.from_rotvec(np.zeros((len(q), 3)))
    for index, joint in enumerate(neck):
        angle = q[..., index] - joint.neutral
        rotation = rotation * Rotation.from_rotvec(angle[..., None] * joint.signed_axis)
    return rotation


class Neck:
    """Solves a profile's neck. Stateless: the same rotation always gives the same angles."""

    def __init__(self, profile: RobotProfile) -> None:
        self.joints = profile.neck
        self._index = {joint.name: i for i, joint in enumerate(self.joints)}
        self._couplings = profile.couplings
        self._lower = np.array([joint.lower for joint in self.joints])
        self._upper = np.array([joint.upper for joint in self.joints])
        self._neutral = np.array([joint.neutral for joint in self.joints])
        axes = np.array([joint.signed_axis for joint in self.joints])
        lower, upper = self._lower - self._neutral, self._upper - self._neutral
        self._merged = ParallelJoints(axes, lower, upper)
        self._euler = EulerChain.of(self._merged.axes)
        self._oblique = ObliqueNeck(axes, lower, upper)

    @property
    def closed_form(self) -> bool:
        """Whether this neck never needs iteration, for any direction."""
        return self._euler is not None and len(self._merged.axes) == len(self.joints)

    def solve(self, wanted: Rotation) -> tuple[Float, Float]:
        """Joint positions within limits for wanted rotations, and the unreachable angle.

        :param wanted: N head rotations relative to the neutral pose, REP-103.
        :returns: positions [N, J_neck] in rad, and the lost angle [N]: the geodesic angle between the wanted rotation
            and the rotation of these positions.
        """
        positions = self.clamp(self._neutral + self._angles(wanted))
        return positions, angle_between(wanted, forward_rotation(self.joints, positions))

    def clamp(self, positions: Float, margin: float = 0.0) -> Float:
        """Positions [N, J_neck] clipped into the limits minus a margin, with limits that depend on another joint."""
        result = np.clip(positions, self._lower + margin, self._upper - margin)
        for coupling in self._couplings:
            column = self._index[coupling.joint]
            lower, upper = coupling.bounds(result[:, self._index[coupling.by]])
            result[:, column] = np.clip(result[:, column], lower + margin, upper - margin)
        return result

    def _angles(self, wanted: Rotation) -> Float:
        """Angles from neutral [N, J_neck]."""
        if self._euler is None:
            return self._oblique.solve(wanted)
        sums, missed = self._closed(self._euler, wanted)
        if self.closed_form:
            return sums
        angles = self._merged.share(np.clip(sums, self._merged.lower, self._merged.upper))
        beyond = missed > 1e-9
        if beyond.any():
            angles[beyond] = self._oblique.solve(wanted[beyond])
        return angles

    def _closed(self, euler: EulerChain, wanted: Rotation) -> tuple[Float, Float]:
        """Of two sets of angles for the same rotation, the one within limits [N, groups]; its unreachable angle [N]."""
        count, lower, upper = len(self._merged.axes), self._merged.lower, self._merged.upper
        costs, answers = [], []
        for angles in euler.angles(wanted):
            own, missing = angles[:, :count], angles[:, count:]
            beyond = np.maximum(lower - own, 0) + np.maximum(own - upper, 0)
            costs.append(beyond.sum(axis=1) + np.abs(missing).sum(axis=1))
            answers.append(own)
        # A tiny preference for the first set prevents a choice by rounding.
        second = costs[1] < costs[0] - 1e-9
        return np.where(second[:, None], answers[1], answers[0]), np.where(second, costs[1], costs[0])
