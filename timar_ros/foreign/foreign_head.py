"""From a tracker's head pose in REP-103 axes to a FLAME frame in which only the head pose is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from timar_ros.motion import HEAD, MOTION_SIZE
from timar_ros.retarget.rotations import rep_to_flame

# A camera's optical frame (x right, y down, z forward) in REP-103 axes.
OPTICAL_AXES = Rotation.from_matrix([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def head_frame(quaternion: npt.ArrayLike, *, neutral: npt.ArrayLike = (0.0, 0.0, 0.0, 1.0)) -> npt.NDArray[np.float32]:
    """One FLAME frame [56] float32: head pose as axis-angle [rad] in FLAME's axes, expression and jaw NaN (not known).

    :param quaternion: the head's orientation, (x, y, z, w), a frame with x out of the face, y to the subject's left and
        z up, in any fixed reference frame.
    :param neutral: the orientation, in the same reference, in which the head looks straight at its partner.
    :raises ValueError: for a quaternion of zero length or with values that are not finite.
    """
    wanted = np.asarray(quaternion, np.float64)
    if wanted.shape != (4,) or not np.isfinite(wanted).all() or np.linalg.norm(wanted) < 1e-6:
        raise ValueError(f"no orientation: {wanted.tolist()}")
    turned = Rotation.from_quat(np.asarray(neutral, np.float64)).inv() * Rotation.from_quat(wanted)
    frame = np.full(MOTION_SIZE, np.nan, np.float32)
    frame[HEAD] = rep_to_flame(turned.as_rotvec())
    return frame
