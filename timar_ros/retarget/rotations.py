"""Rotations: from FLAME's axes to REP-103's, and the angle between two rotations.

FLAME's canonical head has x to the subject's left, y up and z out of the face. REP-103 has x forward, y left and
z up. The two differ by a cyclic change of names, which is a proper rotation of the axes::

    REP x (forward) = FLAME z     REP y (left) = FLAME x     REP z (up) = FLAME y

An axis-angle vector is an ordinary vector under a proper change of axes, so the same permutation converts it. Signs
therefore carry over: FLAME +x pitches the face down and so does REP +y, FLAME +y and REP +z turn to the subject's
left, FLAME +z and REP +x roll the head towards the subject's right shoulder. ``docs/frames.md`` has the picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Float = NDArray[np.float64]


def flame_to_rep(rotation_vector: ArrayLike) -> Float:
    """Axis-angle vectors in FLAME's axes as axis-angle vectors in REP-103's axes.

    :param rotation_vector: shape [..., 3], radians, FLAME (x left, y up, z out of the face).
    :returns: shape [..., 3], radians, REP-103 (x forward, y left, z up).
    """
    vector = np.asarray(rotation_vector, dtype=np.float64)
    return vector[..., [2, 0, 1]]


def rep_to_flame(rotation_vector: ArrayLike) -> Float:
    """The inverse of :func:`flame_to_rep`."""
    vector = np.asarray(rotation_vector, dtype=np.float64)
    return vector[..., [1, 2, 0]]


def angle_between(first: Rotation, second: Rotation) -> Float:
    """Geodesic angle between rotations in radians, shape [N] (or a scalar array for single rotations)."""
    return np.asarray((first.inv() * second).magnitude(), dtype=np.float64)
