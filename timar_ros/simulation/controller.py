"""The rules of joint_trajectory_controller and of forward_command_controller (ros2_controllers, Jazzy), without ROS.

Commands that work with the simulator therefore work with the robot, and the simulator refuses the same commands for the
same reasons. Documented in ros2_controllers: joint_trajectory_controller/doc/{userdoc,trajectory}.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


class RejectedError(ValueError):
    """A command that the controller refuses; the message says why."""


@dataclass
class _Trajectory:
    """An accepted trajectory: ``times`` [N] ns; velocity and acceleration [N, J] or None."""

    times: NDArray[np.int64]
    position: Float
    velocity: Float | None
    acceleration: Float | None


class TrajectoryController:
    """Follows joint trajectories like joint_trajectory_controller.

    A new trajectory replaces the old one at once. If its first point is still ahead, the controller approaches it from
    a previous state, which depends on ``from_desired``; a first point in the past needs no such state. After the last
    point the controller holds the last position. It joins points with positions only linearly, with velocities by
    cubics, with accelerations by quintics.

    :meth:`update` is a control cycle of the real controller (4.42): the command is the trajectory's state one cycle
    ahead; the state before a new trajectory is the measured state of this cycle, or, with ``from_desired``, the last
    command with its own cycle's time, which is one cycle before the command's target time. :meth:`take` and
    :meth:`sample` alone follow without these errors.

    :param names: the controller's joints.
    :param allow_partial: whether a trajectory may leave joints out; those joints keep their positions.
    :param allow_moving_end: whether the last point may have a velocity.
    :param from_desired: the controller's ``interpolate_from_desired_state``.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        allow_partial: bool = True,
        allow_moving_end: bool = False,
        from_desired: bool = True,
    ) -> None:
        self.names = tuple(names)
        self._allow_partial, self._allow_moving_end = allow_partial, allow_moving_end
        self._from_desired = from_desired
        self._hold(np.zeros(len(self.names)))

    def _hold(self, position: Float) -> None:
        self._last = np.stack([position, np.zeros_like(position), np.zeros_like(position)])  # the state before it
        self._command, self._command_ns = self._last, 0  # command and time of the last control cycle
        self._trajectory: _Trajectory | None = None
        self._message: tuple[int, _Trajectory] | None = None  # a new one, its stamp and times from its start

    def reset(self, position: ArrayLike) -> None:
        """Hold these positions [J]; forget any trajectory."""
        self._hold(np.array(position, dtype=np.float64))

    @property
    def active(self) -> bool:
        """Whether there is a trajectory (including an ended one, whose last point is held)."""
        return self._trajectory is not None

    def take(
        self,
        now_ns: int,
        stamp_ns: int,
        names: Sequence[str],
        times: Sequence[float] | Float,
        position: ArrayLike,
        velocity: ArrayLike | None = None,
        acceleration: ArrayLike | None = None,
    ) -> None:
        """Accept a trajectory.

        :param now_ns: the controller's time.
        :param stamp_ns: the trajectory's start; 0 means now.
        :param names: the trajectory's joints, in the order of the columns.
        :param times: seconds from the start, [N].
        :param position: [N, J]; ``velocity`` and ``acceleration`` likewise or None.
        :raises RejectedError: with the reason; the current trajectory then continues.
        """
        seconds = np.asarray(times, dtype=np.float64)
        columns = self._columns(names)
        if not len(seconds):
            raise RejectedError("empty trajectory: it has no points")
        if not np.isfinite(seconds).all() or seconds[0] < 0 or (np.diff(seconds) <= 0).any():
            raise RejectedError("times of points must be finite, not negative and strictly increasing")
        values = {"positions": position, "velocities": velocity, "accelerations": acceleration}
        parts = {name: self._part(name, data, (len(seconds), len(names))) for name, data in values.items()}
        if parts["positions"] is None:
            raise RejectedError("points without positions")
        if parts["accelerations"] is not None and parts["velocities"] is None:
            raise RejectedError("points with accelerations need velocities too")
        speed = parts["velocities"]
        if speed is not None and not self._allow_moving_end and np.abs(speed[-1]).max() > 1e-9:
            raise RejectedError(
                f"velocity of the last point must be zero, not {np.abs(speed[-1]).max():.3g} rad/s "
                "(allow_nonzero_velocity_at_trajectory_end is false)"
            )
        end = (stamp_ns or now_ns) + round(seconds[-1] * 1e9)
        if end < now_ns:
            raise RejectedError(f"trajectory ended {(now_ns - end) / 1e9:.3f} s ago: all points are in the past")
        self._last = self.sample(now_ns)
        full = [None if part is None else self._all_joints(part, columns, name) for name, part in parts.items()]
        assert full[0] is not None
        self._message = (stamp_ns, _Trajectory(np.round(seconds * 1e9).astype(np.int64), full[0], full[1], full[2]))
        self._begin(now_ns, now_ns, self._last)

    def update(self, now_ns: int, period_ns: int, position: ArrayLike, velocity: ArrayLike) -> Float:
        """One control cycle: the command (position, velocity, acceleration), shape [3, J].

        :param now_ns: the cycle's time.
        :param period_ns: the time between two cycles.
        :param position: measured, [J]; ``velocity`` likewise.
        """
        if self._message is not None:
            if self._from_desired:
                self._begin(now_ns, self._command_ns or now_ns, self._command)
            else:
                measured = [np.asarray(part, dtype=np.float64) for part in (position, velocity)]
                self._begin(now_ns, now_ns, np.stack([*measured, np.zeros(len(self.names))]))
            self._message = None
        self._command, self._command_ns = self.sample(now_ns + period_ns), now_ns
        return self._command

    def _begin(self, now_ns: int, before_ns: int, before: Float) -> None:
        """Follow the new trajectory; approach a first point that is still ahead from a state [3, J] at a time."""
        assert self._message is not None
        stamp_ns, message = self._message
        times = (stamp_ns or now_ns) + message.times
        rows = [message.position, message.velocity, message.acceleration]
        if times[0] > before_ns:
            times = np.concatenate([[before_ns], times])
            rows = [
                None if part is None else np.concatenate([before[index : index + 1], part])
                for index, part in enumerate(rows)
            ]
        assert rows[0] is not None
        self._last, self._trajectory = before, _Trajectory(times, rows[0], rows[1], rows[2])

    def _columns(self, names: Sequence[str]) -> list[int]:
        if len(set(names)) != len(names):
            raise RejectedError("a joint is named twice")
        unknown = [name for name in names if name not in self.names]
        if unknown or not names:
            raise RejectedError(f"unknown joints {', '.join(unknown)}: known are {', '.join(self.names)}")
        missing = [name for name in self.names if name not in names]
        if missing and not self._allow_partial:
            raise RejectedError(f"joints {', '.join(missing)} are missing (allow_partial_joints_goal is false)")
        return [self.names.index(name) for name in names]

    @staticmethod
    def _part(name: str, data: ArrayLike | None, shape: tuple[int, int]) -> Float | None:
        if data is None:
            return None
        array = np.asarray(data, dtype=np.float64)
        if array.shape != shape:
            raise RejectedError(f"{name} have shape {list(array.shape)} for {shape[0]} points of {shape[1]} joints")
        if not np.isfinite(array).all():
            raise RejectedError(f"{name} hold values that are not finite")
        return array

    def _all_joints(self, part: Float, columns: list[int], name: str) -> Float:
        """A part for all joints; missing joints hold their position."""
        held = self._last[0] if name == "positions" else np.zeros(len(self.names))
        result = np.repeat(held[None], len(part), axis=0)
        result[:, columns] = part
        return result

    def sample(self, now_ns: int) -> Float:
        """Wanted position, velocity and acceleration at a time, shape [3, J]."""
        trajectory = self._trajectory
        if trajectory is None:
            return np.stack([self._last[0], np.zeros_like(self._last[0]), np.zeros_like(self._last[0])])
        after = int(np.searchsorted(trajectory.times, now_ns, side="right"))
        if after == 0:
            return self._last
        if after == len(trajectory.times):
            rest = np.zeros_like(trajectory.position[-1])
            velocity = rest if trajectory.velocity is None else trajectory.velocity[-1]
            return np.stack([trajectory.position[-1], velocity if self._allow_moving_end else rest, rest])
        return _between(trajectory, after - 1, now_ns)


def _between(trajectory: _Trajectory, index: int, now_ns: int) -> Float:
    """Position, velocity, acceleration between points ``index`` and ``index + 1``, from the values that both hold."""
    length = (trajectory.times[index + 1] - trajectory.times[index]) * 1e-9
    t = (now_ns - trajectory.times[index]) * 1e-9
    p0, p1 = trajectory.position[index], trajectory.position[index + 1]
    zero = np.zeros_like(p0)
    if trajectory.velocity is None:
        slope = (p1 - p0) / length
        return np.stack([p0 + t * slope, slope, zero])
    v0, v1 = trajectory.velocity[index], trajectory.velocity[index + 1]
    d = p1 - p0
    if trajectory.acceleration is None:
        c2 = (3 * d - (2 * v0 + v1) * length) / length**2
        c3 = (-2 * d + (v0 + v1) * length) / length**3
        coefficients = [p0, v0, c2, c3, zero, zero]
    else:
        a0, a1 = trajectory.acceleration[index], trajectory.acceleration[index + 1]
        c3 = (20 * d - (8 * v1 + 12 * v0) * length - (3 * a0 - a1) * length**2) / (2 * length**3)
        c4 = (-30 * d + (14 * v1 + 16 * v0) * length + (3 * a0 - 2 * a1) * length**2) / (2 * length**4)
        c5 = (12 * d - 6 * (v1 + v0) * length - (a0 - a1) * length**2) / (2 * length**5)
        coefficients = [p0, v0, a0 / 2, c3, c4, c5]
    powers = t ** np.arange(6)
    position = sum(c * powers[i] for i, c in enumerate(coefficients))
    velocity = sum(i * c * powers[i - 1] for i, c in enumerate(coefficients) if i)
    acceleration = sum(i * (i - 1) * c * powers[i - 2] for i, c in enumerate(coefficients) if i > 1)
    return np.stack([position, velocity, acceleration])


class ForwardController:
    """Forwards commands like forward_command_controller: no limits, no timeout, a wrong length is an error."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def take(self, values: ArrayLike) -> Float:
        """The commanded positions [J].

        :raises RejectedError: for a wrong number of values, or values that are not finite.
        """
        array = np.asarray(values, dtype=np.float64).reshape(-1)
        if len(array) != len(self.names):
            raise RejectedError(f"{len(array)} commands for {len(self.names)} joints ({', '.join(self.names)})")
        if not np.isfinite(array).all():
            raise RejectedError("commands hold values that are not finite")
        return array
