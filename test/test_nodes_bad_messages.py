"""No message ends a node: what breaks a rule is rejected and said, what makes a callback fail is counted and said."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.qos import DurabilityPolicy, QoSProfile
from support.message_values import fill, leaves
from support.ros_bench import Bench

from timar_ros.msg import AudioChunk, StreamInfo, Turn
from timar_ros.nodes.audio_sink import AudioSink
from timar_ros.nodes.avatar_bridge import AvatarBridge
from timar_ros.nodes.head_simulator import HeadSimulator
from timar_ros.nodes.retarget import Retarget
from timar_ros.nodes.turn_segmenter import TurnSegmenter
from timar_ros.ros import qos
from timar_ros.ros.base import ERROR
from timar_ros.ros.messages import audio_message
from timar_ros.streaming.message_checks import FIELDS

NODES = (TurnSegmenter, AudioSink, Retarget, AvatarBridge, HeadSimulator)
TOPICS = {
    "user/audio": "timar_ros/msg/AudioChunk",
    "agent/audio": "timar_ros/msg/AudioChunk",
    "user/motion": "timar_ros/msg/FlameMotion",
    "agent/motion": "timar_ros/msg/FlameMotion",
    "agent/voice_timing": "timar_ros/msg/VoiceTiming",
    "stream_info": "timar_ros/msg/StreamInfo",
    "cancel": "std_msgs/msg/Header",
    "joint_states": "sensor_msgs/msg/JointState",
    "gaze/joint_states": "sensor_msgs/msg/JointState",
    "gaze/target": "geometry_msgs/msg/PointStamped",
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "commands": "std_msgs/msg/Float64MultiArray",
    "head_pose": "geometry_msgs/msg/PoseStamped",
}


@pytest.fixture
def bench(ros_domain):
    with Bench() as bench:
        yield bench


def message_of(name: str):
    package, kind, stem = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), stem)()


def hostile_messages(name: str):
    """A message of a type with every number in turn not finite, as large as can be, or negative; and an empty one."""
    yield message_of(name)
    for path, kind in leaves(message_of(name)).items():
        for value in (math.nan, math.inf, -1e30, 1e30) if "float" in kind or "double" in kind else (0,):
            message = message_of(name)
            fill(message, path, value) if not isinstance(value, int) else None
            yield message


def test_hostile_messages_end_no_node_and_the_conversation_goes_on(bench):
    nodes = [bench.add(kind) for kind in NODES]
    bench.bring_up(*nodes)
    turns = bench.listen(Turn, "turns", qos.turns())
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publishers = {
        topic: bench.probe.create_publisher(type(message_of(name)), topic, latched) for topic, name in TOPICS.items()
    }
    for publisher in publishers.values():
        bench.connected(publisher)
    for topic, name in TOPICS.items():
        for message in hostile_messages(name):
            publishers[topic].publish(message)
            bench.executor.spin_once(timeout_sec=0.0)
    refused = [f"{topic} rejected" for topic in ("stream_info", "user/audio", "agent/audio")]
    bench.until(lambda: all(nodes[0].statistics.counted(what) for what in refused))
    now, samples = nodes[0].now_ns(), np.random.default_rng(0).normal(0.0, 0.1, 32000).astype(np.float32)
    for role in ("user", "agent"):
        publishers[f"{role}/audio"].publish(audio_message(now, 0, 16000, samples, stream_id=7, end=True))
    bench.until(lambda: any(np.any(np.asarray(turn.user_speech)) for turn in turns))
    assert not [node.last_fault for node in nodes if node.last_fault]
    assert all(name in FIELDS for name in TOPICS.values())


def test_what_was_rejected_is_said_with_the_field(bench):
    sink = bench.add(AudioSink)
    bench.bring_up(sink)
    publisher = bench.probe.create_publisher(StreamInfo, "stream_info", qos.latched())
    publisher.publish(StreamInfo(playback_delay=math.nan))
    bench.until(lambda: sink.statistics.counted("stream_info rejected"))
    assert "playback_delay is nan, which is not finite" in sink.last_rejection


def test_a_callback_that_fails_is_counted_and_the_node_goes_on(bench, monkeypatch):
    segmenter = bench.add(TurnSegmenter)
    bench.bring_up(segmenter)
    publisher = bench.probe.create_publisher(AudioChunk, "user/audio", qos.audio())
    bench.connected(publisher)

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    with monkeypatch.context() as patched:
        patched.setattr(segmenter.builder, "add_audio", fails)
        for _ in range(3):
            publisher.publish(audio_message(segmenter.now_ns(), 0, 16000, np.zeros(640)))
        bench.until(lambda: segmenter.statistics.counted("callback faults") == 3)
    level, text, _rows = segmenter._diagnosis()
    assert (level, text) == (ERROR, "user/audio: ZeroDivisionError: a fault of ours")
    assert len(segmenter._logged_faults) == 1
    publisher.publish(audio_message(segmenter.now_ns(), 0, 16000, np.zeros(640)))
    bench.until(lambda: segmenter.builder.counters.audio_chunks)
