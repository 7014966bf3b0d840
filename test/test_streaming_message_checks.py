"""Every field of every message that a node takes is checked by one table: none is forgotten, none lets NaN through."""

from __future__ import annotations

import array
import importlib
import math
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from support.message_values import fill, leaves, value_at

from timar_ros.ros import messages
from timar_ros.streaming import message_checks
from timar_ros.streaming.message_checks import FIELDS, MessageError, check_fields

OWN = sorted(name for name in FIELDS if name.startswith("timar_ros/msg/"))
NOT_NUMBERS = (math.nan, math.inf, -math.inf)


def message_of(name: str):
    package, kind, stem = name.split("/")
    made = getattr(importlib.import_module(f"{package}.{kind}"), stem)
    return made.Request() if kind == "srv" else made()


def test_no_message_of_ours_is_without_rules():
    ours = importlib.import_module("timar_ros.msg")
    assert {f"timar_ros/msg/{name}" for name in dir(ours) if name[0].isupper()} == set(OWN)


@pytest.mark.parametrize("name", [*OWN, "timar_ros/srv/SetStyle", "std_msgs/msg/Header", "sensor_msgs/msg/JointState"])
def test_every_field_has_its_rule(name):
    assert set(leaves(message_of(name))) == set(FIELDS[name])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (name, path)
        for name in (*OWN, "timar_ros/srv/SetStyle", "geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64MultiArray")
        for path, kind in leaves(message_of(name)).items()
        if kind.startswith(("float", "double", "sequence<float", "sequence<double")) and path in FIELDS[name]
    ],
)
def test_no_field_lets_through_what_is_no_number(name, path):
    for value in NOT_NUMBERS:
        message = message_of(name)
        fill(message, path, value)
        assert FIELDS[name][path](value_at(message, path)) is not None, value


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("timar_ros/msg/Turn", "duration", math.nan, "duration is nan, which is not finite"),
        ("timar_ros/msg/Turn", "phase", 7, "phase is 7, not one of 0, 1"),
        ("timar_ros/msg/StreamInfo", "playback_delay", -3.0, "playback_delay is -3 s, outside 0 to 60"),
        ("timar_ros/msg/StreamInfo", "mode", "fast", "mode is 'fast', not one of '', 'reactive'"),
        ("timar_ros/msg/AudioChunk", "data", array.array("f", [32767.0]), "data holds values beyond 16"),
        ("timar_ros/msg/AudioChunk", "header.frame_id", "a\nb", "header.frame_id holds characters"),
        ("timar_ros/msg/AudioChunk", "header.frame_id", "x" * 256, "header.frame_id has 256 characters"),
        ("timar_ros/msg/FlameMotion", "rate", 1e-30, "rate is 1e-30 Hz, outside 1 to 1000"),
        ("std_msgs/msg/Header", "stamp.nanosec", 4_000_000_000, "stamp.nanosec is 4e\\+09 ns"),
        ("geometry_msgs/msg/PoseStamped", "pose.orientation.w", math.inf, "pose.orientation is .*, no orientation"),
    ],
)
def test_the_reason_names_the_field_and_the_rule(name, path, value, told):
    message = message_of(name)
    if name == "timar_ros/msg/AudioChunk":
        message = messages.audio_message(0, 0, 16000, np.zeros(4))
    elif name == "timar_ros/msg/Turn":
        message.duration, message.sample_rate = 1.0, 16000
    holder, _, field = path.rpartition(".")
    setattr(value_at(message, holder) if holder else message, field, value)
    with pytest.raises(MessageError, match=told):
        check_fields(message, name)


def test_a_point_of_a_trajectory_is_named():
    message = message_of("trajectory_msgs/msg/JointTrajectory")
    point = importlib.import_module("trajectory_msgs.msg").JointTrajectoryPoint
    message.points = [point(), point(positions=array.array("d", [math.nan]))]
    with pytest.raises(MessageError, match=r"points\[1\].positions holds values that are not finite"):
        check_fields(message, "trajectory_msgs/msg/JointTrajectory")


def test_a_robot_may_say_nan_of_a_joint_that_it_does_not_know():
    message = message_of("sensor_msgs/msg/JointState")
    message.name, message.position = ["yaw"], array.array("d", [math.nan])
    check_fields(message, "sensor_msgs/msg/JointState")


floats32 = st.one_of(st.floats(-(2.0**127), 2.0**127, width=32), st.sampled_from(NOT_NUMBERS))
ARRAYS = st.lists(floats32, max_size=8).map(lambda values: array.array("f", values))


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ["timar_ros/msg/AudioChunk", "timar_ros/msg/FlameMotion", "timar_ros/msg/Turn"])
def test_whatever_comes_is_decoded_to_finite_numbers_or_refused(name, data):
    message = message_of(name)
    for path, kind in leaves(message).items():
        if kind.startswith("float"):
            setattr(message, path, data.draw(floats32))
        elif kind.startswith("sequence<float"):
            setattr(message, path, data.draw(ARRAYS))
        elif kind == "sequence<uint8>":
            setattr(message, path, array.array("B", data.draw(st.lists(st.integers(0, 255), max_size=4))))
        elif "." not in path and kind.startswith("uint"):
            setattr(message, path, data.draw(st.integers(0, 2 ** min(int(kind[4:]), 63) - 1)))
    decode = {"AudioChunk": messages.audio, "FlameMotion": messages.motion, "Turn": messages.turn}
    try:
        got = decode[name.rpartition("/")[2]](message)
    except MessageError:
        return
    arrays = [value for value in vars(got).values() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    assert not any(np.isinf(value).any() for value in arrays)
    numbers = [value for value in vars(got).values() if isinstance(value, float)]
    assert all(map(math.isfinite, numbers))


def test_every_rule_has_an_end():
    """No array and no text may be of any length."""
    endless = ("x" * 10_000_000, np.zeros(message_checks.MOST_SAMPLES + 1, np.float32))
    for name, fields in FIELDS.items():
        if name.startswith("tf2_msgs/"):  # not installed everywhere; its only rule is a count
            continue
        for path, kind in leaves(message_of(name)).items():
            if path in fields and kind in ("string", "sequence<float>", "sequence<double>"):
                assert fields[path](endless[kind != "string"]) is not None, (name, path)
    assert len(list(chain.from_iterable(FIELDS.values()))) > 100
