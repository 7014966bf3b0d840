"""Messages of bags to and from numpy, without ROS: the counterpart of the nodes' own conversions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.motion import EXPRESSION, HEAD, JAW

Floats = npt.NDArray[np.float32]

_PARTS = ((EXPRESSION, 1), (JAW, 2), (HEAD, 4))


def stamp_ns(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` (or Duration) in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def header(types: Mapping[str, Any], at_ns: int, frame_id: str = "") -> Any:
    """A ``std_msgs/Header``."""
    time = types["builtin_interfaces/msg/Time"](sec=at_ns // 1_000_000_000, nanosec=at_ns % 1_000_000_000)
    return types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def audio_chunk(
    types: Mapping[str, Any],
    at_ns: int,
    sample_index: int,
    rate: int,
    samples: npt.ArrayLike,
    *,
    stream_id: int = 0,
    end: bool = False,
) -> Any:
    """An AudioChunk of ``samples`` ([n] or [n, channels])."""
    data = np.asarray(samples, np.float32)
    return types["timar_ros/msg/AudioChunk"](
        header=header(types, at_ns),
        stream_id=stream_id,
        sample_index=sample_index,
        sample_rate=rate,
        channels=1 if data.ndim == 1 else data.shape[1],
        data=np.ascontiguousarray(data).reshape(-1),
        end_of_stream=end,
    )


def samples_of(message: Any) -> Floats:
    """Samples of an AudioChunk, [n, channels].

    :raises ValueError: when its length is no multiple of its channels.
    """
    return np.asarray(message.data, np.float32).reshape(-1, max(1, int(message.channels)))


def flame_motion(
    types: Mapping[str, Any],
    at_ns: int,
    rate: float,
    frames: npt.ArrayLike,
    *,
    turn: int = 0,
    speaking: npt.ArrayLike | None = None,
) -> Any:
    """A FlameMotion of ``frames`` [n, 56]; a part that is NaN anywhere goes out empty ("not known")."""
    motion = np.asarray(frames, np.float32).reshape(-1, 56)
    parts = [np.ascontiguousarray(motion[:, part]).reshape(-1) for part, _ in _PARTS]
    expression, jaw, head_pose = (part if np.isfinite(part).all() else np.zeros(0, np.float32) for part in parts)
    return types["timar_ros/msg/FlameMotion"](
        header=header(types, at_ns),
        rate=float(rate),
        turn=turn,
        expression=expression,
        jaw=jaw,
        head_pose=head_pose,
        speaking=np.asarray(speaking if speaking is not None else [], np.uint8),
    )


def frames_of(message: Any) -> Floats:
    """Frames of a FlameMotion, [n, 56]; parts that it does not know are NaN.

    :raises ValueError: when its arrays do not agree on the number of frames.
    """
    expression = np.asarray(message.expression, np.float32).reshape(-1, 50)
    jaw = np.asarray(message.jaw, np.float32).reshape(-1, 3)
    head = np.asarray(message.head_pose, np.float32).reshape(-1, 3)
    lengths = {len(part) for part in (expression, jaw, head) if len(part)}
    if len(lengths) > 1:
        raise ValueError(f"a FlameMotion with {len(expression)} expression, {len(jaw)} jaw and {len(head)} head frames")
    frames = np.full((lengths.pop() if lengths else 0, 56), np.nan, np.float32)
    for (columns, _), part in zip(_PARTS, (expression, jaw, head), strict=True):
        if len(part):
            frames[:, columns] = part
    return frames


def user_motion_of(message: Any) -> Floats | None:
    """The user's frames of a Turn, [F, 56] with NaN where not tracked; None when nothing was tracked at all."""
    tracked = np.asarray(message.user_tracked, np.uint8)
    if not tracked.any():
        return None
    frames = np.array(message.user_motion, np.float32).reshape(-1, 56)
    for columns, bit in _PARTS:
        frames[(tracked & bit) == 0, columns] = np.nan
    return frames


def tracked_bits(frames: Floats | None, count: int) -> npt.NDArray[np.uint8]:
    """Which parts of each frame are known (not NaN), as the bits of Turn.user_tracked; [count]."""
    bits = np.zeros(count, np.uint8)
    if frames is not None:
        for columns, bit in _PARTS:
            bits |= np.where(np.isfinite(frames[:, columns]).all(axis=1), bit, 0).astype(np.uint8)
    return bits


def joint_state(
    types: Mapping[str, Any], at_ns: int, names: Sequence[str], position: npt.ArrayLike, velocity: npt.ArrayLike = ()
) -> Any:
    """A ``sensor_msgs/JointState`` (positions [J] and, if given, velocities [J])."""
    return types["sensor_msgs/msg/JointState"](
        header=header(types, at_ns),
        name=list(names),
        position=np.asarray(position, np.float64),
        velocity=np.asarray(velocity, np.float64),
        effort=np.zeros(0),
    )


def stream_info(types: Mapping[str, Any], at_ns: int, **values: Any) -> Any:
    """A StreamInfo; what is not given is 0, "" or False."""
    blank: dict[str, Any] = {
        **dict.fromkeys(("mode", "model", "model_sha256", "device", "dtype", "context_policy", "normalising"), ""),
        **dict.fromkeys(("turn_duration", "motion_rate", "playback_delay", "context_seconds"), 0.0),
        **dict.fromkeys(("guidance", "temperature"), 0.0),
        **dict.fromkeys(("sample_rate", "sampling_steps", "seed"), 0),
        "trained": False,
    }
    return types["timar_ros/msg/StreamInfo"](header=header(types, at_ns), **{**blank, **values})
