"""Joint positions and trajectories as messages, with checked sizes and values."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from timar_ros.ros.messages import MessageError, to_stamp


def doubles(values: ArrayLike) -> array.array[float]:
    """Values of any shape, row-major, as the content of a ``float64[]`` field."""
    return array.array("d", np.ascontiguousarray(values, np.float64).tobytes())


def joint_state_message(
    stamp_ns: int, names: Sequence[str], position: ArrayLike, velocity: ArrayLike = (), effort: ArrayLike = ()
) -> JointState:
    """A JointState of positions [J] (rad), with or without velocities and efforts."""
    message = JointState(name=list(names))
    message.header.stamp = to_stamp(stamp_ns)
    for field, values in (("position", position), ("velocity", velocity), ("effort", effort)):
        data = np.asarray(values, np.float64)
        if data.size:
            _finite_rows(field, data, (len(names),))
        elif field == "position" and len(names):
            raise MessageError("a joint state needs positions")
        setattr(message, field, doubles(data))
    return message


def trajectory_message(
    stamp_ns: int,
    names: Sequence[str],
    times: ArrayLike,
    position: ArrayLike,
    velocity: ArrayLike | None = None,
    acceleration: ArrayLike | None = None,
    frame_id: str = "",
) -> JointTrajectory:
    """A JointTrajectory.

    :param stamp_ns: start time; 0 means at once.
    :param times: [n] seconds from the start, strictly increasing, first above 0.
    :param position: [n, J] rad; ``velocity`` and ``acceleration`` likewise or None.
    """
    seconds = np.asarray(times, np.float64)
    if seconds.ndim != 1 or not seconds.size or seconds[0] <= 0.0 or not (np.diff(seconds) > 0.0).all():
        raise MessageError("trajectory times must be above 0 and strictly increasing")
    shape = (len(seconds), len(names))
    series: dict[str, Any] = {"positions": position, "velocities": velocity, "accelerations": acceleration}
    columns = {
        name: _finite_rows(name, np.asarray(values, np.float64), shape)
        for name, values in series.items()
        if values is not None
    }
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    for index, moment in enumerate(seconds):
        point = JointTrajectoryPoint(**{name: doubles(values[index]) for name, values in columns.items()})
        point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(moment * 1e9), 1_000_000_000)
        message.points.append(point)
    return message


def _finite_rows(name: str, data: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    if data.shape != shape:
        raise MessageError(f"{name} must be {list(shape)}, not {list(data.shape)}")
    if not np.isfinite(data).all():
        raise MessageError(f"{name} holds values that are not finite")
    return data
