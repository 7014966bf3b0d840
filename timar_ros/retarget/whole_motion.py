"""Retargeting a whole motion at once, with the live node's own object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from timar_ros.errors import UserError
from timar_ros.motion import MOTION_RATE, MOTION_SIZE
from timar_ros.retarget.joint_motion import JointMotion
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.retarget_options import RetargetOptions
from timar_ros.retarget.retargeter import Retargeter

# Longest time from the last frame until the head is at rest.
SETTLE_SECONDS = 10.0


def retarget_motion(
    profile: RobotProfile,
    frames: ArrayLike,
    rate: float = MOTION_RATE,
    out_rate: float = 100.0,
    options: RetargetOptions | None = None,
    speaking: ArrayLike | None = None,
    gaze: Sequence[tuple[float, Sequence[float] | None]] = (),
) -> JointMotion:
    """Joint motion for FLAME frames [T, 56] that begin at time 0.

    Begins at rest at neutral, lasts at least as long as the frames and ends at rest on the last frame's pose: the last
    row's velocity is 0.

    :param rate: frames per second [Hz].
    :param out_rate: rows per second [Hz].
    :param gaze: times [s] and the points to look at from then on [m] in ``gaze_frame``, None for none; in the order of
        their times. As live, a point that is not renewed is lost after ``gaze_timeout``.
    :raises UserError: wrong shape or rate, or no frames.
    """
    array = np.asarray(frames, dtype=np.float64)
    if array.ndim != 2 or array.shape[1:] != (MOTION_SIZE,) or not len(array):
        raise UserError(f"motion must have shape [T, 56] with at least one frame, not {list(array.shape)}")
    # Disable the watchdog: a file's end is not an interrupted stream.
    chosen = options or RetargetOptions()
    patient = {**chosen.__dict__, "timeout": SETTLE_SECONDS + 1.0}
    retargeter = Retargeter(profile, out_rate, RetargetOptions(**patient))
    retargeter.push(0, rate, array, speaking)
    parts = []
    for seconds, point in gaze:
        parts.append(retargeter.advance(round(seconds * 1e9)))
        retargeter.look(round(seconds * 1e9), point)
    end_ns = round(len(array) / rate * 1e9)
    parts.append(retargeter.advance(end_ns - 1))
    step_ns = 40_000_000
    for until in range(end_ns, end_ns + round(SETTLE_SECONDS * 1e9), step_ns):
        parts.append(retargeter.advance(until))
        if retargeter.settled:
            break
    motion = JointMotion.join([part for part in parts if len(part)])
    moving = np.flatnonzero(np.abs(motion.velocity).max(axis=1) > 1e-9)
    last = int(moving[-1]) + 2 if len(moving) else 1
    shortest = int(np.searchsorted(motion.time_ns, end_ns))
    return motion[: max(last, shortest)]
