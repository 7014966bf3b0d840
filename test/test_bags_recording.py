"""Bags as arrays on one time axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import bag_factory as factory

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import TOPICS, BagWriter
from timar_ros.bags.recording import find_bag, load_recording
from timar_ros.errors import UserError


def test_everything_lands_where_it_belongs(tmp_path: Path) -> None:
    factory.write_bag(tmp_path / "bag", 6.0, namespace="/robot", dropped=(3,))
    recording = load_recording(tmp_path)  # the folder of a run that holds one bag
    assert recording.seconds == pytest.approx(6.0)
    assert recording.playback_delay == 1.3
    np.testing.assert_array_equal(recording.user_audio, factory.voice(6.0, "user"))
    np.testing.assert_array_equal(recording.agent_audio, factory.voice(6.0, "agent"))
    assert recording.user_motion is not None
    np.testing.assert_array_equal(recording.user_motion.at_rate(6.0), factory.motion(6.0, "user"))
    assert recording.agent_motion is not None
    agent = recording.agent_motion.at_rate(6.0)
    expected = factory.motion(6.0, "agent")
    np.testing.assert_array_equal(agent[:75], expected[:75])  # the delay is taken off again
    assert np.isnan(agent[76:99]).all()  # the dropped turn (its first frame still shows the last one's end)
    np.testing.assert_array_equal(agent[100:], expected[100:])
    assert recording.dropped == 1
    assert recording.response_times() == pytest.approx(np.full(5, 0.07), abs=0.0101)
    assert recording.joints is not None
    assert recording.joints.time[0] == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(recording.joints.position, factory.joint_positions(expected))
    assert recording.info["playback_delay"] == 1.3
    assert recording.diagnostics["timar_inference: node"]["turns dropped"] == "0"


def test_lost_chunks_become_silence(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/user/audio", "timar_ros/msg/AudioChunk")
        for index in (0, 1, 3):
            samples = np.full(160, 0.5, np.float32)
            bag.write(
                "/user/audio", index, bag_messages.audio_chunk(bag.types, index * 10**7, index * 160, 16000, samples)
            )
    recording = load_recording(tmp_path / "bag")
    assert recording.user_audio is not None
    np.testing.assert_array_equal(recording.user_audio, np.repeat([0.5, 0.5, 0, 0.5], 160).astype(np.float32))


def test_joints_of_two_publishers_are_held(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/joint_states", "sensor_msgs/msg/JointState")
        bag.add_topic("/agent/motion", "timar_ros/msg/FlameMotion")
        bag.write("/agent/motion", 1, bag_messages.flame_motion(bag.types, 1, 25.0, np.zeros((25, 56))))
        for index, (name, value) in enumerate((("a", 1.0), ("b", 2.0), ("a", 3.0))):
            bag.write("/joint_states", index + 1, bag_messages.joint_state(bag.types, index + 1, [name], [value]))
    joints = load_recording(tmp_path / "bag").joints
    assert joints is not None
    assert joints.names == ["a", "b"]
    np.testing.assert_array_equal(joints.position, [[1, np.nan], [1, 2], [3, 2]])


def test_what_is_no_conversation_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/joint_states", "sensor_msgs/msg/JointState")
        bag.write("/joint_states", 1, bag_messages.joint_state(bag.types, 1, ["a"], [0.0]))
    with pytest.raises(UserError, match="no conversation of ours"):
        load_recording(tmp_path / "bag")


def test_a_message_that_contradicts_itself(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/agent/motion", "timar_ros/msg/FlameMotion")
        message = bag_messages.flame_motion(bag.types, 1, 25.0, np.zeros((2, 56)))
        message.jaw = message.jaw[:3]
        bag.write("/agent/motion", 1, message)
    with pytest.raises(UserError, match="contradicts itself"):
        load_recording(tmp_path / "bag")


def write_audio(path: Path, samples: np.ndarray, leap_ns: int = 0) -> Path:
    """A user of one second in two halves, the second late by a leap of the clock."""
    with BagWriter(path) as bag:
        bag.add_topic("/user/audio", TOPICS["user/audio"])
        for index in range(2):
            stamp = factory.START_NS + index * (500_000_000 + leap_ns)
            half = samples[index * 8000 : (index + 1) * 8000]
            bag.write("/user/audio", stamp, bag_messages.audio_chunk(bag.types, stamp, index * 8000, 16000, half))
    return path


def test_samples_that_are_no_numbers_are_silent_and_told(tmp_path: Path) -> None:
    samples = np.full(16000, 0.5, np.float32)
    samples[100:103] = [np.nan, np.inf, -np.inf]
    recording = load_recording(write_audio(tmp_path / "bag", samples))
    assert recording.user_audio is not None
    assert (recording.user_audio[100:103] == 0).all()
    assert np.count_nonzero(recording.user_audio) == 15997
    assert any("3 samples of /user/audio" in warning for warning in recording.warnings)


def test_the_bag_of_a_run_is_called_by_the_run(tmp_path: Path) -> None:
    factory.write_bag(tmp_path / "walk" / "bag", 1.0)
    assert load_recording(tmp_path / "walk").name == "bag"
    (tmp_path / "walk" / "motion.npz").touch()
    assert load_recording(tmp_path / "walk").name == "walk"


def test_a_run_with_two_bags_must_be_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        factory.write_bag(tmp_path / name, 1.0)
    with pytest.raises(UserError, match="several bags"):
        find_bag(tmp_path)
