"""Messages of bags to and from numpy, without ROS: the codec of `timar_ros.streaming.codec` with rosbags' classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.options import to_plain
from timar_ros.retarget.retarget_options import RetargetOptions
from timar_ros.streaming import codec
from timar_ros.streaming.codec import frames_of, samples_of, user_motion_of
from timar_ros.streaming.codec import to_ns as stamp_ns
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.turns.turn_types import TurnInput

__all__ = [
    "audio_chunk",
    "encoder",
    "flame_motion",
    "frames_of",
    "header",
    "joint_state",
    "point",
    "samples_of",
    "stamp_ns",
    "stream_info",
    "tracked_bits",
    "turn_message",
    "user_motion_of",
]


def encoder(types: Mapping[str, Any]) -> codec.Encoder:
    """An encoder for messages of rosbags' ``types`` that copies recordings with unchecked values."""
    return codec.Encoder(types, np.asarray, strict=False)


def header(types: Mapping[str, Any], at_ns: int, frame_id: str = "") -> Any:
    """A ``std_msgs/Header``."""
    return encoder(types).header(at_ns, frame_id)


def audio_chunk(
    types: Mapping[str, Any], at_ns: int, sample_index: int, rate: int, samples: npt.ArrayLike, **more: Any
) -> Any:
    """An AudioChunk of ``samples`` ([n] or [n, channels]); ``more`` as for :meth:`codec.Encoder.audio`."""
    return encoder(types).audio(at_ns, sample_index, rate, samples, **more)


def flame_motion(types: Mapping[str, Any], at_ns: int, rate: float, frames: npt.ArrayLike, **more: Any) -> Any:
    """A FlameMotion of ``frames`` [n, 56]; ``more`` as for :meth:`codec.Encoder.motion`."""
    return encoder(types).motion(at_ns, rate, frames, **more)


def turn_message(types: Mapping[str, Any], turn: TurnInput, motion_rate: float) -> Any:
    """A Turn."""
    return encoder(types).turn(turn, motion_rate)


def tracked_bits(frames: npt.NDArray[np.float32] | None, count: int) -> npt.NDArray[np.uint8]:
    """Which parts of each of ``count`` frames are known, as the bits of Turn.user_tracked; no part for None."""
    return np.zeros(count, np.uint8) if frames is None else codec.tracked_bits(frames)


def joint_state(
    types: Mapping[str, Any], at_ns: int, names: Sequence[str], position: npt.ArrayLike, velocity: npt.ArrayLike = ()
) -> Any:
    """A ``sensor_msgs/JointState`` (positions [J] and, if given, velocities [J])."""
    return types["sensor_msgs/msg/JointState"](
        header=encoder(types).header(at_ns),
        name=list(names),
        position=np.asarray(position, np.float64),
        velocity=np.asarray(velocity, np.float64),
        effort=np.zeros(0),
    )


def point(types: Mapping[str, Any], at_ns: int, frame_id: str, xyz: Sequence[float]) -> Any:
    """A ``geometry_msgs/PointStamped`` (x, y, z in m)."""
    x, y, z = (float(value) for value in xyz)
    return types["geometry_msgs/msg/PointStamped"](
        header=header(types, at_ns, frame_id), point=types["geometry_msgs/msg/Point"](x=x, y=y, z=z)
    )


def retarget_info(types: Mapping[str, Any], at_ns: int, robot: str, rate: float, options: RetargetOptions) -> Any:
    """A RetargetInfo: the robot's profile, commands per second [Hz], and the behaviour."""
    triples = {name: np.array(getattr(options, name), np.float64) for name in ("neutral_pose", "gaze_origin")}
    values = {**asdict(options), **triples}
    return types["timar_ros/msg/RetargetInfo"](header=header(types, at_ns), robot=robot, rate=rate, **values)


def retarget_options_of(message: Any) -> RetargetOptions:
    """The behaviour in a RetargetInfo; options that the message lacks have their defaults."""
    known = {item.name: getattr(message, item.name) for item in fields(RetargetOptions) if hasattr(message, item.name)}
    for name in known.keys() & {"neutral_pose", "gaze_origin"}:
        x, y, z = (float(value) for value in known[name])
        known[name] = (x, y, z)
    return RetargetOptions(**known)


def stream_info(types: Mapping[str, Any], at_ns: int, **values: Any) -> Any:
    """A StreamInfo; missing options have their defaults, other fields are 0, "" or False."""
    blank: dict[str, Any] = {
        **to_plain(PipelineOptions()),
        **dict.fromkeys(("model", "model_sha256", "device", "dtype"), ""),
        **dict.fromkeys(("turn_duration", "motion_rate"), 0.0),
        **dict.fromkeys(("sample_rate", "threads"), 0),
        "trained": False,
    }
    return types["timar_ros/msg/StreamInfo"](header=encoder(types).header(at_ns), **{**blank, **values})
