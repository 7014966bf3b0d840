"""Seams between turns: each turn's motion is sampled by itself, so frames can jump at a turn boundary.

Inertialisation (Bollo, "Inertialization: High-Performance Animation Transitions in Gears of War", GDC 2018) takes the
offset between the extrapolated last turn and the new turn, and fades it out over the turn's first frames along a
quintic: position and velocity are continuous, nothing is delayed, and later frames stay untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.motion import EXPRESSION, HEAD, JAW, MOTION_SIZE, PARTS

Frames = NDArray[np.float32]
_Values = NDArray[np.float64]


class Inertialiser:
    """Joins turns of motion.

    :param frames: over how many frames an offset fades out, at least 2; the jaw's offset over half as many.
    :param enabled: False leaves motion as it is.
    :param face_frames: over how many frames the offsets of expression and jaw fade out, at least 2, where turns agree
        better than the defaults assume.
    """

    def __init__(self, frames: int = 8, enabled: bool = True, face_frames: int | None = None) -> None:
        if min(frames, face_frames or frames) < 2:
            raise ValueError(f"frames is {frames}, face_frames is {face_frames}; they must be 2 or more")
        self.frames = frames
        # The lips must soon be right again; the jaw is light and may move fast.
        self._jaw_frames = face_frames or max(frames // 2, 2)
        self._expression_frames = face_frames or frames
        self.enabled = enabled
        self._last: _Values = np.zeros((0, MOTION_SIZE))  # up to two last output frames

    def reset(self) -> None:
        """Forget the last frames: the next turn is not joined."""
        self._last = self._last[:0]

    def apply(self, motion: Frames, follows: bool = True) -> Frames:
        """Join a turn ``[F, 56]`` to the one before.

        :param follows: False when turns are missing in between: the head rested, so only its pose is continued.
        """
        values = motion.astype(np.float64)
        if self.enabled and len(self._last) and len(values):
            last = self._last if follows else self._last[-1:]
            offset = _linear_offset(last[:, EXPRESSION], values[:2, EXPRESSION])
            values[:, EXPRESSION] += _fade(*offset, self._expression_frames, len(values))
            for part, frames in ((JAW, self._jaw_frames), (HEAD, self.frames)):
                offset = _rotation_offset(last[:, part], values[:2, part])
                fading = Rotation.from_rotvec(_fade(*offset, frames, len(values)))
                values[:, part] = (fading * Rotation.from_rotvec(values[:, part])).as_rotvec()
        self._last = np.concatenate([self._last, values])[-2:]
        return values.astype(np.float32)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The last output frames."""
        return {"last": self._last.copy()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Resume from a :meth:`state_dict`."""
        self._last = np.asarray(state["last"], dtype=np.float64).reshape(-1, MOTION_SIZE)[-2:]


def _fade(offset: _Values, velocity: _Values, frames: int, count: int) -> _Values:
    """The offset ``[n]`` at the turn's frames ``[count, n]``: a quintic that ends at rest after ``frames``."""
    length = min(frames, count)  # finished by the next seam, or offsets would accumulate
    # An offset that already moves towards zero arrives there sooner: otherwise it would overshoot far.
    with np.errstate(divide="ignore", invalid="ignore"):
        arrival = np.where(offset * velocity < 0, -5.0 * offset / velocity, length)
    span = np.clip(arrival, length / 2, length)
    # With s from 0 to 1: x(0) = offset, x'(0) = velocity, x''(0) = 0; x, x', x'' = 0 at the end.
    speed = velocity * span
    s = np.minimum((1.0 + np.arange(count))[:, None] / span, 1.0)
    a5, a4, a3 = -6 * offset - 3 * speed, 15 * offset + 8 * speed, -10 * offset - 6 * speed
    faded: _Values = ((a5 * s + a4) * s + a3) * s**3 + speed * s + offset
    return np.where(s < 1.0, faded, 0.0)


def _linear_offset(last: _Values, first: _Values) -> tuple[_Values, _Values]:
    """Offset and its change per frame at the last output frame, relative to the new turn extrapolated backwards."""
    step = first[-1] - first[0]
    offset = last[-1] - (first[0] - step)
    velocity = last[-1] - last[0] - step if len(last) == 2 else np.zeros_like(step)
    return offset, velocity


def _rotation_offset(last: _Values, first: _Values) -> tuple[_Values, _Values]:
    """As _linear_offset, for axis-angle vectors: the offset is the rotation from the new turn to the old."""
    turns = Rotation.from_rotvec(first)
    back = (turns[0].inv() * turns[-1]).inv()
    before = turns[0] * back
    offset = (Rotation.from_rotvec(last[-1]) * before.inv()).as_rotvec()
    if len(last) < 2:
        return offset, np.zeros_like(offset)
    return offset, offset - (Rotation.from_rotvec(last[0]) * (before * back).inv()).as_rotvec()


def seam_ratio(motion: Frames, frames_per_turn: int = 25) -> dict[str, float]:
    """How much faster motion ``[T, 56]`` changes from turn to turn than inside turns: 1 is seamless.

    The mean absolute difference of neighbouring frames at the seams, divided by that inside turns; keys ``expression``,
    ``jaw`` and ``head_pose``. NaN where there is no seam or no motion.
    """
    change = np.abs(np.diff(motion.astype(np.float64), axis=0))
    seams = np.zeros(len(change), dtype=bool)
    seams[frames_per_turn - 1 :: frames_per_turn] = True
    ratios = {}
    for name, part in PARTS.items():
        at, inside = change[seams, part], change[~seams, part]
        known = at.size and inside.size and inside.mean() > 0
        ratios[name] = float(at.mean() / inside.mean()) if known else float("nan")
    return ratios
