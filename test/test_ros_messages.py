"""Messages to numpy and back: exact where they can be, refused with the field's name where they cannot."""

from __future__ import annotations

import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message, serialize_message

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_types import typestore
from timar_ros.msg import AudioChunk, FlameMotion, Turn
from timar_ros.ros import joint_messages, messages
from timar_ros.ros.messages import MessageError
from timar_ros.streaming import codec
from timar_ros.streaming.turns.turn_builder import TurnInput


def sent(message):
    """The message as it comes out at the other side."""
    return deserialize_message(serialize_message(message), type(message))


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_keep_every_nanosecond(nanoseconds):
    assert messages.to_ns(messages.to_stamp(nanoseconds)) == nanoseconds


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 700), st.integers(1, 4), st.integers(0, 2**62), st.booleans())
def test_audio_comes_back_bit_for_bit(count, channels, index, end):
    samples = np.random.default_rng(count).uniform(-1, 1, (count, channels)).astype(np.float32)
    back = messages.audio(sent(messages.audio_message(7, index, 16000, samples, stream_id=3, end=end)))
    assert (back.stamp_ns, back.sample_index, back.rate, back.stream_id, back.end) == (7, index, 16000, 3, end)
    np.testing.assert_array_equal(back.samples, samples)


def test_mono_audio_is_one_channel():
    back = messages.audio(messages.audio_message(0, 0, 8000, np.zeros(5)))
    assert back.samples.shape == (5, 1)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"sample_rate": 0, "channels": 1}, "sample_rate"),
        ({"sample_rate": 16000, "channels": 0}, "channels"),
        ({"sample_rate": 16000, "channels": 2, "data": array.array("f", [0.0] * 3)}, "channels"),
        ({"sample_rate": 16000, "channels": 1, "data": array.array("f", [float("nan")])}, "finite"),
    ],
)
def test_impossible_audio_is_refused(fields, named):
    with pytest.raises(MessageError, match=named):
        messages.audio(AudioChunk(**fields))


def test_motion_comes_back_with_unknown_parts_as_nan():
    frames = np.random.default_rng(1).normal(size=(4, 56)).astype(np.float32)
    frames[:, 50:53] = np.nan
    message = sent(messages.motion_message(5, 25.0, frames, turn=9, speaking=[0, 1, 1, 0]))
    assert len(message.jaw) == 0
    back = messages.motion(message)
    np.testing.assert_array_equal(back.frames, frames)
    np.testing.assert_array_equal(back.speaking, [0, 1, 1, 0])
    assert (back.turn, back.rate, back.stamp_ns) == (9, 25.0, 5)


def test_motion_known_in_some_frames_only_needs_several_messages():
    frames = np.zeros((6, 56), np.float32)
    frames[2] = np.nan  # wholly lost
    frames[4:, :50] = np.nan  # head and jaw only
    with pytest.raises(MessageError, match="expression"):
        messages.motion_message(0, 25.0, frames)
    back = [messages.motion(m) for m in messages.motion_messages(0, 25.0, frames)]
    assert [m.stamp_ns // 40_000_000 for m in back] == [0, 3, 4]
    assert [len(m.frames) for m in back] == [2, 1, 2]
    assert np.isnan(back[2].frames[:, :50]).all()
    assert np.isfinite(back[2].frames[:, 50:]).all()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rate": 0.0}, "rate"),
        ({"rate": 25.0, "jaw": array.array("f", [0.0] * 4)}, "jaw"),
        ({"rate": 25.0, "jaw": array.array("f", [0.0] * 3), "head_pose": array.array("f", [0.0] * 6)}, "frames"),
        ({"rate": 25.0, "jaw": array.array("f", [float("inf")] * 3)}, "jaw"),
        ({"rate": 25.0, "jaw": array.array("f", [0.0] * 3), "speaking": array.array("B", [1, 1])}, "speaking"),
    ],
)
def test_impossible_motion_is_refused(fields, named):
    with pytest.raises(MessageError, match=named):
        messages.motion(FlameMotion(**fields))


def a_turn(**changes):
    rng = np.random.default_rng(3)
    values = {
        "number": 12,
        "stamp_ns": 1_700_000_000_123_456_789,
        "duration": 0.08,
        "user_speech": rng.uniform(-1, 1, 1280).astype(np.float32),
        "agent_speech": rng.uniform(-1, 1, 1280).astype(np.float32),
        "user_motion": rng.normal(size=(2, 56)).astype(np.float32),
        "lost_user": 3,
        "lost_agent": 4,
    }
    return TurnInput(**(values | changes))


def same(one, other):
    for name in ("number", "stamp_ns", "planned", "lost_user", "lost_agent"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.duration == pytest.approx(other.duration, rel=1e-6)
    np.testing.assert_array_equal(one.user_speech, other.user_speech)
    np.testing.assert_array_equal(one.agent_speech, other.agent_speech)
    if other.user_motion is None:
        assert one.user_motion is None
    else:
        np.testing.assert_array_equal(one.user_motion, other.user_motion)


def test_turns_come_back_bit_for_bit():
    same(messages.turn(sent(messages.turn_message(a_turn(), 25.0))), a_turn())


def test_untracked_parts_are_zeros_on_the_way_and_nan_again_at_the_end():
    frames = a_turn().user_motion.copy()
    frames[0] = np.nan
    frames[1, 50:53] = np.nan
    message = sent(messages.turn_message(a_turn(user_motion=frames), 25.0))
    assert np.isfinite(np.asarray(message.user_motion)).all()
    assert list(message.user_tracked) == [0, Turn.EXPRESSION | Turn.HEAD_POSE]
    same(messages.turn(message), a_turn(user_motion=frames))


def test_a_turn_without_tracker_and_one_with_nothing_tracked_are_the_same():
    for motion in (None, np.full((2, 56), np.nan, np.float32)):
        assert messages.turn(sent(messages.turn_message(a_turn(user_motion=motion), 25.0))).user_motion is None


def test_planned_turns_carry_the_agents_speech_alone():
    planned = a_turn(planned=True, user_speech=np.zeros(1280, np.float32), user_motion=None, lost_user=0)
    message = sent(messages.turn_message(planned, 25.0))
    assert message.phase == Turn.PLANNED
    assert len(message.user_speech) == 0
    same(messages.turn(message), planned)


@pytest.mark.parametrize("field", ["user_speech", "agent_speech", "user_motion"])
def test_turns_of_the_wrong_size_are_refused_by_name(field):
    message = messages.turn_message(a_turn(), 25.0)
    getattr(message, field).pop()
    with pytest.raises(MessageError, match=field):
        messages.turn(message)


def test_sequences_are_filled_with_arrays_and_not_with_lists():
    message = messages.turn_message(a_turn(), 25.0)
    for name in ("user_speech", "agent_speech", "user_motion", "user_tracked"):
        assert isinstance(getattr(message, name), array.array), name


def test_constants_are_those_of_the_definitions():
    assert (codec.COMPLETE, codec.PLANNED) == (Turn.COMPLETE, Turn.PLANNED)
    assert codec.BITS == {"expression": Turn.EXPRESSION, "jaw": Turn.JAW, "head_pose": Turn.HEAD_POSE}


@pytest.mark.parametrize("kind", ["audio", "motion", "turn"])
def test_a_bag_and_a_topic_carry_the_same_messages(kind):
    """One codec: what it writes with rosbags' classes, rclpy reads, and the other way round."""
    frames = a_turn().user_motion.copy()
    frames[:, 50:53] = np.nan
    given = {
        "audio": (7, 640, 48000, np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)),
        "motion": (7, 25.0, frames),
        "turn": (a_turn(user_motion=frames), 25.0),
    }[kind]
    msgtype = {"audio": "AudioChunk", "motion": "FlameMotion", "turn": "Turn"}[kind]
    live = sent(getattr(messages, f"{kind}_message")(*given))
    store = typestore()
    bagged = getattr(bag_messages.encoder(store.types), kind)(*given)
    written = bytes(store.serialize_cdr(bagged, f"timar_ros/msg/{msgtype}"))
    assert deserialize_message(written, type(live)) == live
    read = getattr(codec, kind)
    back = read(store.deserialize_cdr(serialize_message(live), f"timar_ros/msg/{msgtype}"))
    for name, value in vars(read(live)).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)


def test_a_copy_keeps_what_a_sender_would_be_refused():
    """A bag's copy must not fail on what was recorded; a live message must not be sent."""
    frames = np.zeros((2, 56), np.float32)
    frames[1, 3] = np.nan
    made = bag_messages.flame_motion(typestore().types, 0, 25.0, frames)
    assert len(made.expression) == 0
    assert len(made.jaw) == 6
    with pytest.raises(MessageError, match="expression"):
        messages.motion_message(0, 25.0, frames)
    sound = np.array([0.0, np.nan], np.float32)
    chunk = bag_messages.audio_chunk(typestore().types, 0, 0, 16000, sound)
    np.testing.assert_array_equal(bag_messages.samples_of(chunk)[:, 0], sound)
    with pytest.raises(MessageError, match="finite"):
        messages.audio_message(0, 0, 16000, sound)


def test_joint_state_and_trajectory():
    state = sent(joint_messages.joint_state_message(3, ["a", "b"], [1.0, 2.0], [0.1, 0.2]))
    assert (list(state.name), list(state.position), list(state.velocity), list(state.effort)) == (
        ["a", "b"], [1.0, 2.0], [0.1, 0.2], [],
    )  # fmt: skip
    made = sent(joint_messages.trajectory_message(0, ["a"], [0.5, 1.25], [[1.0], [2.0]], [[0.0], [0.5]]))
    assert [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in made.points] == [0.5, 1.25]
    assert [list(p.velocities) for p in made.points] == [[0.0], [0.5]]
    for times, rows in (
        ([0.0, 1.0], [[1.0], [1.0]]),
        ([1.0, 1.0], [[1.0], [1.0]]),
        ([1.0], [[np.nan]]),
        ([1.0], [[1.0, 2.0]]),
    ):
        with pytest.raises(MessageError):
            joint_messages.trajectory_message(0, ["a"], times, rows)
