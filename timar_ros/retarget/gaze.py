"""Turning the head to a point: where the point lies, and the way there, on top of which the model's motion rides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.errors import UserError

Float = NDArray[np.float64]

REACTION = 0.2
"""A turn begins this long [s] after the target's stamp. People need as long, and most commands that are computed before
the target comes are right: how fast a message travels hardly matters."""

# Targets that differ by less [rad in every joint] are the same: a detector's noise does not move the head.
DEAD_BAND = 0.03
# Share of the limits of velocity and acceleration that a turn uses; the rest is for the motion on top.
SHARE = 0.7
# Largest velocity and acceleration of a movement of least jerk by 1 in 1 s (Flash & Hogan 1985).
PEAK_VELOCITY, PEAK_ACCELERATION = 1.875, 5.7735
# How long the way stays known for the past [s].
MEMORY = 20.0
NEAREST = 1e-3


def is_direction(point: Sequence[float], origin: Sequence[float]) -> bool:
    """Whether a point is finite, and not at the head's own place."""
    offset = np.subtract(point, origin)
    return bool(np.isfinite(offset).all() and np.linalg.norm(offset) >= NEAREST)


def direction(point: Sequence[float], origin: Sequence[float]) -> tuple[float, float]:
    """Yaw and pitch [rad] (REP-103: left and down are positive) from the head's place to a point.

    :param point: x, y, z [m], axes of REP-103: x forward, y left, z up.
    :param origin: the head's place in the same frame [m].
    :raises UserError: the point is the head's own place, or not finite.
    """
    if not is_direction(point, origin):
        raise UserError("a gaze target must be finite, and not at the head's own place")
    x, y, z = np.subtract(point, origin)
    return float(np.arctan2(y, x)), float(-np.arctan2(z, np.hypot(x, y)))


def toward(yaw: float, pitch: float) -> Rotation:
    """The rotation of a head that looks into a direction, without roll."""
    return Rotation.from_euler("ZY", [[yaw, pitch]])


@dataclass
class _Way:
    """A movement of least jerk from a state to rest at ``target`` [J]; it holds the target afterwards."""

    start_ns: int
    seconds: float
    target: Float
    coefficients: Float  # [6, J] over time in s

    def at(self, seconds: Float) -> tuple[Float, Float, Float]:
        """Position, velocity and acceleration [N, J] at times after the start [N]."""
        t = np.minimum(seconds, self.seconds)[:, None]
        c = self.coefficients
        position = c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * (c[4] + t * c[5]))))
        velocity = c[1] + t * (2 * c[2] + t * (3 * c[3] + t * (4 * c[4] + t * 5 * c[5])))
        acceleration = 2 * c[2] + t * (6 * c[3] + t * (12 * c[4] + t * 20 * c[5]))
        done = seconds >= self.seconds
        position[done], velocity[done], acceleration[done] = self.target, 0.0, 0.0
        return position, velocity, acceleration


class Gaze:
    """The neck's offset [J] over time: a function of the targets and their times alone.

    :param velocity: the neck joints' limits [J], rad/s.
    :param acceleration: the same [J], rad/s^2.
    :param seconds: shortest duration of a turn [s].
    :param timeout: how long a target counts [s]; then the head goes back.
    :param back: shortest duration of the way back [s].
    """

    def __init__(self, velocity: Float, acceleration: Float, seconds: float, timeout: float, back: float) -> None:
        self._velocity, self._acceleration = velocity, acceleration
        self._seconds, self._timeout, self._back = seconds, timeout, back
        self._ways: list[_Way] = []

    @property
    def used(self) -> bool:
        """Whether there was a target so far."""
        return bool(self._ways)

    def look(self, stamp_ns: int, target: Float | None) -> int | None:
        """Set the target from a time on, which must not lie before the one of an earlier call.

        :param target: offset from neutral [J], rad; None: back to neutral now.
        :returns: time [ns] from which the offset has changed; None if it has not.
        """
        changed_ns = None
        while self._ways and self._ways[-1].start_ns >= stamp_ns:
            changed_ns = self._ways.pop().start_ns
        aim = np.zeros_like(self._velocity) if target is None else target
        last = self._ways[-1].target if self._ways else np.zeros_like(aim)
        if np.abs(aim - last).max() > (DEAD_BAND if target is not None else 0.0):
            self._add(stamp_ns, aim, self._seconds if target is not None else self._back)
            changed_ns = stamp_ns
        if self._ways and self._ways[-1].target.any():
            self._add(stamp_ns + round(self._timeout * 1e9), np.zeros_like(aim), self._back)
        while len(self._ways) > 1 and self._ways[1].start_ns < stamp_ns - MEMORY * 1e9:
            self._ways.pop(0)
        return changed_ns

    def _add(self, start_ns: int, target: Float, shortest: float) -> None:
        position, velocity, acceleration = (value[0] for value in self._state(np.array([start_ns])))
        size = np.abs(target - position)
        seconds = max(
            shortest,
            float((PEAK_VELOCITY * size / (SHARE * self._velocity)).max()),
            float(np.sqrt(PEAK_ACCELERATION * size / (SHARE * self._acceleration)).max()),
        )
        t = seconds
        ends = np.array([[t**3, t**4, t**5], [3 * t**2, 4 * t**3, 5 * t**4], [6 * t, 12 * t**2, 20 * t**3]])
        rest = [
            target - position - velocity * t - acceleration * t * t / 2, -velocity - acceleration * t, -acceleration
        ]  # fmt: skip
        first = np.stack([position, velocity, acceleration / 2])
        self._ways.append(_Way(start_ns, seconds, target, np.concatenate([first, np.linalg.solve(ends, rest)])))

    def _state(self, time_ns: NDArray[np.int64]) -> tuple[Float, Float, Float]:
        position, velocity, acceleration = (np.zeros((len(time_ns), len(self._velocity))) for _ in range(3))
        which = np.searchsorted([way.start_ns for way in self._ways], time_ns, side="right") - 1
        for index in np.unique(which[which >= 0]):
            rows, way = which == index, self._ways[index]
            position[rows], velocity[rows], acceleration[rows] = way.at((time_ns[rows] - way.start_ns) * 1e-9)
        return position, velocity, acceleration

    def at(self, time_ns: NDArray[np.int64]) -> Float:
        """The offset [N, J] at times [N]."""
        return self._state(time_ns)[0]
