"""Converts a face landmarker's result to FLAME frames with head pose and jaw; the expression stays unknown.

MediaPipe's FaceLandmarker gives a matrix that moves its model of a face (x to the subject's left, y up, z out of the
face: FLAME's axes) into the camera's frame (x to the right of the picture, y up, z towards the camera). A head that
looks straight along the camera's axis has the identity as its rotation, so the rotation needs no change of axes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from timar_ros.motion import HEAD, JAW, MOTION_RATE, MOTION_SIZE
from timar_ros.retarget.avatar import JAW_OPEN, jaw_of_arkit

Floats = npt.NDArray[np.float64]

NS = 1_000_000_000
STEP_BACK = NS
"""A stamp that is earlier than the last one by more than this [ns] means that the clock was set back."""
INTERVALS = 15
"""Number of intervals between pictures whose median gives the frame rate."""


@dataclass(frozen=True)
class Face:
    """A face in one picture: its ``matrix`` [4, 4] in the camera's frame, and ARKit weights in [0, 1] by name."""

    matrix: npt.ArrayLike
    weights: Mapping[str, float]


def rotation_of(matrix: npt.ArrayLike) -> Rotation:
    """The rotation in a transformation [4, 4] (or [3, 3]); scale and small errors of the matrix are taken out.

    :raises ValueError: for another shape, values that are not finite, a matrix without a rotation, or a mirroring one.
    """
    values = np.asarray(matrix, np.float64)
    if values.shape not in ((4, 4), (3, 3)) or not np.isfinite(values).all():
        raise ValueError(f"no transformation of a face: {values.tolist()}")
    left, stretch, right = np.linalg.svd(values[:3, :3])
    nearest = left @ right
    if stretch[-1] < 1e-6 * max(stretch[0], 1e-6) or np.linalg.det(nearest) < 0:
        raise ValueError(f"no rotation of a face: {values[:3, :3].tolist()}")
    return Rotation.from_matrix(nearest)


def matrix_of(head_pose: npt.ArrayLike) -> Floats:
    """The transformation [4, 4] of a face at the origin with a head pose [3] (axis-angle [rad], FLAME's axes)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.asarray(head_pose, np.float64)).as_matrix()
    return matrix


class FaceFrames:
    """Makes FLAME frames of one person's faces, picture by picture.

    :param neutral: the head pose [3] (axis-angle [rad]) of a head that looks straight ahead. It is removed on the
        body's side, as a camera's tilt.
    :param neutral_seconds: time after the first face [s] whose mean pose replaces ``neutral``. During this time the
        mean of the pictures so far is used. 0: use ``neutral``.
    :param jaw_open: the jaw's rotation about x at ``jawOpen`` 1 [rad].
    """

    def __init__(
        self, neutral: npt.ArrayLike = (0.0, 0.0, 0.0), neutral_seconds: float = 0.0, jaw_open: float = JAW_OPEN
    ) -> None:
        self._neutral = Rotation.from_rotvec(np.asarray(neutral, np.float64))
        self._learning = neutral_seconds > 0
        self._until = neutral_seconds
        self._seen: list[Rotation] = []
        self._first = 0
        self._jaw_open = jaw_open
        self._last: int | None = None
        self._intervals: deque[int] = deque(maxlen=INTERVALS)

    @property
    def neutral(self) -> Floats:
        """The neutral pose [3], axis-angle [rad]."""
        return np.asarray(self._neutral.as_rotvec(), np.float64)

    @property
    def learning(self) -> bool:
        """Whether the neutral pose still changes."""
        return self._learning

    @property
    def rate(self) -> float:
        """Pictures per second [Hz], from the median of the last intervals; 25 before the second picture."""
        return NS / float(np.median(self._intervals)) if self._intervals else MOTION_RATE

    def is_next(self, stamp_ns: int) -> bool:
        """Whether a picture of this time follows the last one, or the clock was set back by more than 1 s."""
        return self._last is None or stamp_ns > self._last or stamp_ns < self._last - STEP_BACK

    def push(self, stamp_ns: int, face: Face | None) -> npt.NDArray[np.float32]:
        """The FLAME frame [56] of a picture; NaN in the expression, and everywhere without a face.

        :param stamp_ns: the picture's time [ns].
        :param face: what was found in the picture; None: no face.
        :raises ValueError: when the stamp is not the next one (see :meth:`is_next`), or the matrix has no rotation.
        """
        if not self.is_next(stamp_ns):
            raise ValueError(f"a picture of {stamp_ns} ns came after one of {self._last} ns")
        if self._last is not None and 0 < stamp_ns - self._last < NS:
            self._intervals.append(stamp_ns - self._last)
        self._last = stamp_ns
        frame = np.full(MOTION_SIZE, np.nan, np.float32)
        if face is None:
            return frame
        rotation = rotation_of(face.matrix)
        self._learn(stamp_ns, rotation)
        frame[HEAD] = (self._neutral.inv() * rotation).as_rotvec()
        frame[JAW] = jaw_of_arkit(face.weights, jaw_open=self._jaw_open)
        return frame

    def _learn(self, stamp_ns: int, rotation: Rotation) -> None:
        if not self._learning:
            return
        if not self._seen or stamp_ns < self._first:
            self._seen, self._first = [], stamp_ns
        if stamp_ns - self._first > self._until * NS:
            self._learning, self._seen = False, []
            return
        self._seen.append(rotation)
        self._neutral = Rotation.concatenate(self._seen).mean()
