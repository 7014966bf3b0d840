"""From a wanted head rotation to the angles of a neck, and back.

The chain is a product of rotations about axes given at the neutral pose: ``R = rot(a1, t1) rot(a2, t2) ...`` from the
body to the head, with ``t = sign * (position - neutral)``. Necks of one to three joints about different principal axes
have a closed form, by Euler angles in the chain's own order. What a neck cannot turn is put last in that order, roll
after all others: then the face still looks where it should, and the roll that is lost never becomes yaw. All other
necks (oblique axes, more joints than needed) go to :mod:`timar_ros.retarget.oblique`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from timar_ros.retarget.oblique import ObliqueNeck
from timar_ros.retarget.profile import NeckJoint, RobotProfile
from timar_ros.retarget.rotations import angle_between

Float = NDArray[np.float64]
# Which missing axis comes first when the neck's own are used up: roll (x) last, so that gaze is kept.
MISSING_ORDER = (2, 1, 0)


def forward_rotation(neck: Sequence[NeckJoint], positions: ArrayLike) -> Rotation:
    """The head's rotation against its neutral pose, REP-103.

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
        self._euler = EulerChain.of(axes)
        self._oblique = ObliqueNeck(axes, self._lower - self._neutral, self._upper - self._neutral)

    @property
    def closed_form(self) -> bool:
        """Whether this neck needs no iteration."""
        return self._euler is not None

    def solve(self, wanted: Rotation) -> tuple[Float, Float]:
        """Joint positions within limits for wanted rotations, and what they miss.

        :param wanted: N head rotations against the neutral pose, REP-103.
        :returns: positions [N, J_neck] in rad, and the lost angle [N]: the geodesic angle between the wanted rotation
            and the one that these positions give.
        """
        positions = self._neutral + (self._closed(wanted) if self._euler is not None else self._oblique.solve(wanted))
        positions = self.clamp(positions)
        return positions, angle_between(wanted, forward_rotation(self.joints, positions))

    def clamp(self, positions: Float, margin: float = 0.0) -> Float:
        """Positions [N, J_neck] put within the limits less a margin, those that depend on another joint included."""
        result = np.clip(positions, self._lower + margin, self._upper - margin)
        for coupling in self._couplings:
            column = self._index[coupling.joint]
            lower, upper = coupling.bounds(result[:, self._index[coupling.by]])
            result[:, column] = np.clip(result[:, column], lower + margin, upper - margin)
        return result

    def _closed(self, wanted: Rotation) -> Float:
        """Angles from neutral [N, J_neck]: of the two sets that give the same rotation, the one within limits."""
        assert self._euler is not None
        count = len(self.joints)
        lower, upper = self._lower - self._neutral, self._upper - self._neutral
        costs, answers = [], []
        for angles in self._euler.angles(wanted):
            own, missing = angles[:, :count], angles[:, count:]
            beyond = np.maximum(lower - own, 0) + np.maximum(own - upper, 0)
            costs.append(beyond.sum(axis=1) + np.abs(missing).sum(axis=1))
            answers.append(own)
        # A hair's breadth in favour of the first keeps rounding from making the choice.
        return np.where((costs[1] < costs[0] - 1e-9)[:, None], answers[1], answers[0])


class EulerChain:
    """Angles about three axes of which the neighbours are orthogonal, in closed form.

    With ``a1`` turned out of the orthogonal triple by ``tilt`` about ``a2`` (a neck mounted at a slant, as Reachy 2's),
    ``rot(a1, t1) = rot(a2, tilt) rot(a1', t1) rot(a2, -tilt)``, so that the rest is Euler angles in the triple's basis.
    """

    def __init__(self, second: Float, third: Float, tilt: float) -> None:
        self._tilt = tilt
        self._basis = Rotation.from_matrix(np.stack([np.cross(second, third), second, third], axis=1))

    @classmethod
    def of(cls, axes: Float) -> EulerChain | None:
        """The chain of one to three signed axes [J, 3], completed by the missing ones; None if it has no such form."""
        rows = list(axes)
        for missing in MISSING_ORDER:
            if len(rows) < 3 and all(abs(row[missing]) < 1e-9 for row in rows):
                rows.append(np.eye(3)[missing])
        if len(rows) != 3 or abs(rows[0] @ rows[1]) > 1e-9 or abs(rows[1] @ rows[2]) > 1e-9:
            return None
        first, second, third = rows
        straight = np.cross(second, third)
        tilt = float(np.arctan2(np.cross(straight, first) @ second, straight @ first))
        # Without the first axis in the plane of the other two's normal, gimbal lock would lie in the middle.
        return cls(second, third, tilt) if abs(np.cos(tilt)) > 0.5 else None

    def angles(self, wanted: Rotation) -> tuple[Float, Float]:
        """Both sets of angles, each [N, 3] and within -pi and pi."""
        turned = Rotation.from_rotvec(-self._tilt * self._basis.as_matrix()[:, 1]) * wanted
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gimbal lock: any of the equivalent answers will do
            first = np.atleast_2d((self._basis.inv() * turned * self._basis).as_euler("XYZ"))
        second = np.stack([first[:, 0] + np.pi, np.pi - first[:, 1], first[:, 2] + np.pi], axis=1)
        first = first + np.array([0.0, self._tilt, 0.0])
        second = second + np.array([0.0, self._tilt, 0.0])
        return _wrapped(first), _wrapped(second)


def _wrapped(angles: Float) -> Float:
    return (angles + np.pi) % (2 * np.pi) - np.pi
