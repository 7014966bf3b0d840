"""Allowed values of every field of every message that a node takes: one table, :data:`FIELDS`, by message type.

Nodes check each message against the table before a callback sees it; readers of bags check each decoded message. The
codec checks whether the fields of one message fit each other (lengths of arrays). Nothing here needs ROS: a message is
any object with the fields, and its sequences are arrays, lists or numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from timar_ros.motion import MOTION_SIZE
from timar_ros.streaming.sampling_options import LARGEST_SEED, MODES

MAX_RATE = 384_000
"""Highest sample rate of audio [Hz]."""
MIN_MOTION_RATE, MAX_MOTION_RATE = 1.0, 1000.0
"""Frames per second of motion [Hz]."""
MAX_MAGNITUDE = 1e3
"""An expression coefficient or an angle [rad] beyond this is a fault of the sender."""
LOUDEST = 16.0
"""Audio lies within -1 and 1 and may exceed that a little; a sample beyond this is an unscaled integer."""
MOST_SAMPLES = 1 << 24
"""Values of one array of audio: 43 s at the highest rate."""
MOST_FRAMES = 10_000
"""Frames of one message of motion: 400 s at 25 Hz."""
MOST_JOINTS = 1000
MOST_POINTS = 100_000
LONGEST_TEXT = 4096
LONGEST_NAME = 255
LONGEST_SECONDS = 60.0
"""A turn, a delay, a look-ahead [s]."""
LARGEST_COUNT = 1 << 62
"""Counters of samples and turns: sums with them stay within 64 bits."""

Rule = Callable[[Any], "str | None"]


class MessageError(ValueError):
    """A message that breaks its definition; the text names the field."""


def number(low: float, high: float, unit: str = "") -> Rule:
    """A finite number within a range."""
    tail = f" {unit}" if unit else ""

    def rule(value: Any) -> str | None:
        if not math.isfinite(value):
            return f"is {value}, which is not finite"
        return None if low <= value <= high else f"is {value:g}{tail}, outside {low:g} to {high:g}"

    return rule


def numbers(most: int, largest: float = math.inf, *, finite: bool = True) -> Rule:
    """An array of at most ``most`` numbers of magnitude ``largest`` or less; ``finite`` False allows NaN and inf."""

    def rule(values: Any) -> str | None:
        if len(values) > most:
            return f"has {len(values)} values, more than {most}"
        if not finite or not len(values):
            return None
        array = np.asarray(values)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return "holds values that are not finite"
        if math.isfinite(largest) and float(np.abs(array).max()) > largest:
            return f"holds values beyond {largest:g}"
        return None

    return rule


def text(longest: int = LONGEST_NAME) -> Rule:
    """A text of limited length, without control characters: it may enter a log or a file's name."""

    def rule(value: Any) -> str | None:
        if len(value) > longest:
            return f"has {len(value)} characters, more than {longest}"
        return None if str(value).isprintable() else "holds characters that cannot be printed"

    return rule


def one_of(values: Sequence[Any]) -> Rule:
    """One of the given values."""
    allowed = tuple(values)

    def rule(value: Any) -> str | None:
        return None if value in allowed else f"is {value!r}, not one of {', '.join(map(repr, allowed))}"

    return rule


def texts(most: int) -> Rule:
    """A list of at most ``most`` texts."""
    single = text()

    def rule(values: Any) -> str | None:
        if len(values) > most:
            return f"has {len(values)} entries, more than {most}"
        return next((fault for value in values if (fault := single(value)) is not None), None)

    return rule


def each(most: int, fields: Mapping[str, Rule]) -> Rule:
    """A list of at most ``most`` messages, each with its own fields."""

    def rule(values: Any) -> str | None:
        if len(values) > most:
            return f"has {len(values)} entries, more than {most}"
        for index, value in enumerate(values):
            if (fault := _first_fault(value, fields)) is not None:
                return f"[{index}].{fault}"
        return None

    return rule


def anything(value: Any) -> str | None:  # noqa: ARG001
    """Any value that the type allows."""
    return None


def _unit_quaternion(quaternion: Any) -> str | None:
    values = [quaternion.x, quaternion.y, quaternion.z, quaternion.w]
    length = math.hypot(*values)
    return None if math.isfinite(length) and 1e-6 < length < 1e6 else f"is {values}, no orientation"


_TIME: dict[str, Rule] = {"sec": anything, "nanosec": number(0, 999_999_999, "ns")}
_COUNT = number(0, LARGEST_COUNT)
_SECONDS = number(0.0, LONGEST_SECONDS, "s")
_POINT = number(-1e6, 1e6, "m")


def _under(place: str, rules: Mapping[str, Rule]) -> dict[str, Rule]:
    return {f"{place}.{name}": rule for name, rule in rules.items()}


_HEADER: dict[str, Rule] = {**_under("header.stamp", _TIME), "header.frame_id": text()}
_SPEECH = numbers(MOST_SAMPLES, LOUDEST)

FIELDS: dict[str, dict[str, Rule]] = {
    "timar_ros/msg/AudioChunk": {
        **_HEADER,
        "stream_id": anything,
        "sample_index": _COUNT,
        "sample_rate": number(1, MAX_RATE, "Hz"),
        "channels": number(1, 255),
        "data": _SPEECH,
        "end_of_stream": anything,
    },
    "timar_ros/msg/FlameMotion": {
        **_HEADER,
        "rate": number(MIN_MOTION_RATE, MAX_MOTION_RATE, "Hz"),
        "turn": _COUNT,
        "expression": numbers(MOST_FRAMES * MOTION_SIZE, MAX_MAGNITUDE),
        "jaw": numbers(MOST_FRAMES * MOTION_SIZE, MAX_MAGNITUDE),
        "head_pose": numbers(MOST_FRAMES * MOTION_SIZE, MAX_MAGNITUDE),
        "speaking": numbers(MOST_FRAMES),
        "from_plan": anything,
    },
    "timar_ros/msg/Turn": {
        **_HEADER,
        "number": _COUNT,
        "phase": one_of((0, 1)),
        "duration": number(0.001, LONGEST_SECONDS, "s"),
        "sample_rate": number(1, MAX_RATE, "Hz"),
        "user_speech": _SPEECH,
        "agent_speech": _SPEECH,
        "agent_ahead": _SPEECH,
        "motion_rate": number(0.0, MAX_MOTION_RATE, "Hz"),
        "user_motion": numbers(MOST_FRAMES * MOTION_SIZE, MAX_MAGNITUDE),
        "user_tracked": numbers(MOST_FRAMES, 7),
        "lost_user_samples": anything,
        "lost_agent_samples": anything,
    },
    "timar_ros/msg/VoiceTiming": {**_HEADER, "stream_id": anything, "delay": _SECONDS},
    "timar_ros/msg/StreamInfo": {
        **_HEADER,
        "mode": one_of(("", *MODES)),
        "turn_duration": _SECONDS,
        "sample_rate": number(0, MAX_RATE, "Hz"),
        "motion_rate": number(0.0, MAX_MOTION_RATE, "Hz"),
        "playback_delay": _SECONDS,
        "model": text(LONGEST_TEXT),
        "model_sha256": text(),
        "trained": anything,
        "device": text(),
        "dtype": text(),
        "threads": anything,
        "context_seconds": number(0.0, 3600.0, "s"),
        "context_policy": text(),
        "mask_history_agent": anything,
        "guidance": number(0.0, 100.0),
        "temperature": number(0.0, 100.0),
        "sampling_steps": number(0, 100_000),
        "noise_correlation": number(-1.0, LONGEST_SECONDS, "s"),
        "head_crossover": number(-1.0, MAX_MOTION_RATE, "Hz"),
        "liveliness": number(0.0, 100.0),
        "follow_partner": anything,
        "engine": text(),
        "seed": number(-LARGEST_SEED - 1, LARGEST_SEED),
        "normalising": text(),
        "seams": anything,
        "planning_lead": _SECONDS,
        "hop": _SECONDS,
        "hop_margin": _SECONDS,
        "look_ahead": _SECONDS,
        "channel": number(-1, 254),
    },
    "timar_ros/msg/RetargetInfo": {
        **_HEADER,
        "robot": text(LONGEST_TEXT),
        "rate": number(0.0, 100_000.0, "Hz"),
        "neutral": text(),
        "neutral_pose": numbers(3, MAX_MAGNITUDE),
        "gaze_origin": numbers(3, MAX_MAGNITUDE),
        **dict.fromkeys(("gaze_mode", "gaze_frame"), text()),
        **dict.fromkeys(
            (
                *("neutral_seconds", "timeout", "ease", "resume", "nod_seconds"),
                *("speaking_gain", "listening_gain", "jaw_gain", "nod_gain", "speaking_speed", "listening_speed"),
                *("idle_amplitude", "max_head", "max_jaw", "knot_rate", "gaze_share", "gaze_seconds", "gaze_timeout"),
            ),
            number(0.0, 1e6),
        ),
    },
    "timar_ros/srv/SetStyle": dict.fromkeys(
        ("guidance", "temperature", "liveliness", "speaking_gain", "listening_gain", "jaw_gain", "nod_gain"),
        numbers(1, 100.0),
    ),
    "std_msgs/msg/Header": {**_under("stamp", _TIME), "frame_id": text()},
    "std_msgs/msg/Bool": {"data": anything},
    "std_msgs/msg/Float64MultiArray": {"data": numbers(MOST_JOINTS, 1e6)},
    # A robot sends NaN for values that it does not know yet: `retarget` waits for numbers.
    "sensor_msgs/msg/JointState": {
        **_HEADER,
        "name": texts(MOST_JOINTS),
        **dict.fromkeys(("position", "velocity", "effort"), numbers(MOST_JOINTS, finite=False)),
    },
    "geometry_msgs/msg/PointStamped": {**_HEADER, **dict.fromkeys(("point.x", "point.y", "point.z"), _POINT)},
    "geometry_msgs/msg/PoseStamped": {
        **_HEADER,
        **dict.fromkeys(("pose.position.x", "pose.position.y", "pose.position.z"), _POINT),
        "pose.orientation": _unit_quaternion,
    },
    "trajectory_msgs/msg/JointTrajectory": {
        **_HEADER,
        "joint_names": texts(MOST_JOINTS),
        "points": each(
            MOST_POINTS,
            {
                **dict.fromkeys(("positions", "velocities", "accelerations", "effort"), numbers(MOST_JOINTS, 1e6)),
                **_under("time_from_start", _TIME),
            },
        ),
    },
    # The store of transforms checks them one by one: a bad transform must not cost the others.
    "tf2_msgs/msg/TFMessage": {"transforms": lambda values: None if len(values) <= MOST_POINTS else "are too many"},
}
"""The rules of a message's fields, by the type's full name. Nested fields by path, such as ``header.frame_id``."""


def type_name(message_type: type) -> str:
    """The full name of one of rclpy's classes, such as ``timar_ros/msg/Turn``."""
    package, kind = message_type.__module__.split(".")[:2]
    name = message_type.__qualname__.split(".")[0]
    return f"{package}/{kind}/{name.removesuffix('_Request')}"


def check_fields(message: Any, name: str) -> None:
    """Check every field of a message of a type in :data:`FIELDS`; other types pass.

    :raises MessageError: naming the first field that breaks its rule, and the rule.
    """
    if (fields := FIELDS.get(name)) is not None and (fault := _first_fault(message, fields)) is not None:
        raise MessageError(fault)


def _first_fault(message: Any, fields: Mapping[str, Rule]) -> str | None:
    for path, rule in fields.items():
        value = message
        for part in path.split("."):
            value = getattr(value, part, None)
        # A bag of an older version lacks newer fields.
        if value is not None and (fault := rule(value)) is not None:
            return f"{path}{'' if fault.startswith('[') else ' '}{fault}"
    return None
