"""The recorder in a running graph: nothing missed, losses told, any end leaves a readable bag."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 in this environment")
pytest.importorskip("timar_ros.msg", reason="the interfaces are not built in this environment")

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.bag_recorder import LossCounter
from timar_ros.bags.bag_types import typestore
from timar_ros.msg import AudioChunk, StreamInfo
from timar_ros.nodes.recorder import Recorder

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def graph(ros_domain: int) -> Iterator[tuple[Any, SingleThreadedExecutor]]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    executor = SingleThreadedExecutor(context=context)
    node = rclpy.create_node("source", context=context)
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def spin(executor: SingleThreadedExecutor, until: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + 120
    while not until():
        executor.spin_once(timeout_sec=0.02)
        assert time.monotonic() < ends, f"waited in vain for {what}"


def recorder(node: Any, executor: SingleThreadedExecutor, folder: Path, **values: Any) -> Recorder:
    overrides = [Parameter(name, value=value) for name, value in ({"path": str(folder)} | values).items()]
    made = Recorder(context=node.context, parameter_overrides=overrides)
    executor.add_node(made)
    return made


def chunk(index: int, size: int = 320) -> AudioChunk:
    message = AudioChunk(sample_index=index, sample_rate=16000, channels=1)
    message.data.frombytes(np.full(size, index, np.float32).tobytes())
    return message


def test_records_everything_and_counts_gaps(graph: Any, tmp_path: Path) -> None:
    node, executor = graph
    info = node.create_publisher(StreamInfo, "stream_info", LATCHED)
    info.publish(StreamInfo(mode="reactive", seed=11))
    recording = recorder(node, executor, tmp_path / "bag")
    recording.trigger_configure()
    audio = node.create_publisher(AudioChunk, "user/audio", 100)
    best_effort = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
    unexpected = node.create_publisher(JointState, "extra/joints", best_effort)
    spin(executor, lambda: all(p.get_subscription_count() == 1 for p in (audio, unexpected)), "discovery")
    recording.trigger_activate()
    sent = [index * 320 for index in range(50) if index not in (10, 11, 30)]
    for index in sent:
        audio.publish(chunk(index))
    for position in range(20):
        unexpected.publish(JointState(name=["a"], position=[float(position)]))
    recording.end()
    assert recording.summary is not None
    assert recording.summary.lost_samples == {"/user/audio": 960}
    assert recording.summary.messages["/user/audio"] == len(sent)
    with BagReader(tmp_path / "bag") as bag:
        assert [m.sample_index for _, _, m in bag.messages({"/user/audio"})] == sent
        assert [m.seed for _, _, m in bag.messages({"/stream_info"})] == [11]
        assert len(list(bag.messages({"/extra/joints"}))) == 20
        assert bag.topics["/stream_info"].qos[0].durability.name == "TRANSIENT_LOCAL"
        assert bag.topics["/extra/joints"].qos[0].reliability.name == "BEST_EFFORT"
        assert json.loads(bag.custom["timar_lost_samples"]) == {"/user/audio": 960}
    recording.destroy_node()


def test_bytes_are_those_on_the_wire(graph: Any, tmp_path: Path) -> None:
    from rclpy.serialization import deserialize_message

    node, executor = graph
    recording = recorder(node, executor, tmp_path / "bag", topics=["user/audio"])
    recording.trigger_configure()
    audio = node.create_publisher(AudioChunk, "user/audio", 100)
    # Another reader's bytes: to serialize anew would not do, since what fills the gaps between fields is chance.
    wire: list[bytes] = []
    node.create_subscription(AudioChunk, "user/audio", wire.append, 100, raw=True)
    spin(executor, lambda: audio.get_subscription_count() == 2, "discovery")
    recording.trigger_activate()
    sent = [chunk(index * 7, 7) for index in range(5)]
    for message in sent:
        audio.publish(message)
    spin(executor, lambda: recording.recorder.received == len(wire) == 5, "the messages")  # type: ignore[union-attr]
    recording.end()
    with BagReader(tmp_path / "bag") as bag:
        assert set(bag.topics) == {"/user/audio"}
        recorded = [data for _, _, data in bag.raw()]
    assert recorded == wire
    assert [deserialize_message(data, AudioChunk) for data in recorded] == sent
    recording.destroy_node()


def test_simulated_time_stamps_the_bag(graph: Any, tmp_path: Path) -> None:
    node, executor = graph
    recording = recorder(node, executor, tmp_path / "bag", use_sim_time=True, topics=["user/audio"])
    recording.trigger_configure()
    audio, clock = node.create_publisher(AudioChunk, "user/audio", 10), node.create_publisher(Clock, "/clock", 10)
    spin(executor, lambda: audio.get_subscription_count() == 1 and clock.get_subscription_count() == 1, "discovery")
    recording.trigger_activate()
    audio.publish(chunk(0))
    spin(executor, lambda: len(recording._early) == 1, "the message before time began")
    tick = Clock()
    tick.clock.sec = 1234
    clock.publish(tick)
    spin(executor, lambda: recording.now_ns() > 0, "the clock")
    audio.publish(chunk(320))
    spin(executor, lambda: recording.recorder.received == 2, "the messages")  # type: ignore[union-attr]
    recording.end()
    with BagReader(tmp_path / "bag") as bag:
        assert [stamp for _, stamp, _ in bag.raw()] == [1234_000_000_000] * 2
    recording.destroy_node()


@pytest.mark.parametrize("values", [{"path": ""}, {"qos_profiles": "/nowhere.yaml"}, {"topics": ["a//b"]}])
def test_bad_parameters_refuse_configuring(graph: Any, tmp_path: Path, values: dict[str, Any]) -> None:
    node, executor = graph
    recording = recorder(node, executor, tmp_path / "bag", **values)
    recording.trigger_configure()
    assert recording.phase == "unconfigured"
    assert recording.fault is not None
    assert "\n" not in recording.fault
    assert "Error" not in recording.fault
    recording.destroy_node()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_any_end_leaves_a_readable_bag(graph: Any, tmp_path: Path, how: signal.Signals) -> None:
    node, executor = graph
    audio = node.create_publisher(AudioChunk, "user/audio", 100)
    command = [sys.executable, "-m", "timar_ros.cli.main", "record", str(tmp_path / "bag"), "--topics", "/user/audio"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "100"})
    try:
        assert process.stdout is not None
        spin(executor, lambda: audio.get_subscription_count() == 1, "the recorder")
        assert "recording into" in process.stdout.readline()
        index = 0
        file = tmp_path / "bag" / "bag_0.mcap"

        def publish_until_written() -> bool:
            nonlocal index
            audio.publish(chunk(index * 320))
            index += 1
            # Each chunk that has reached the disk is one flush; the first holds the first second.
            return file.exists() and file.stat().st_size > 20_000

        spin(executor, publish_until_written, "the first chunk on the disk")
        process.send_signal(how)
        output = process.communicate(timeout=20)[0]
    finally:
        process.kill()
        process.wait()
    with BagReader(tmp_path / "bag") as bag:
        indices = [m.sample_index for _, _, m in bag.messages()]
        assert (bag.salvaged is None) == (how == signal.SIGINT)
    assert len(indices) >= 10
    assert indices == list(range(indices[0], indices[0] + 320 * len(indices), 320))
    if how == signal.SIGINT:
        assert process.returncode == 0
        assert "nothing lost" in output


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compress", [False, True])
def test_each_storage_holds_what_was_sent(graph: Any, tmp_path: Path, storage: str, compress: bool) -> None:
    node, executor = graph
    recording = recorder(node, executor, tmp_path / "bag", topics=["user/audio"], storage=storage, compress=compress)
    recording.trigger_configure()
    audio = node.create_publisher(AudioChunk, "user/audio", 100)
    spin(executor, lambda: audio.get_subscription_count() == 1, "discovery")
    recording.trigger_activate()
    for index in range(5):
        audio.publish(chunk(index * 320))
    spin(executor, lambda: recording.recorder.received == 5, "the messages")  # type: ignore[union-attr]
    recording.end()
    assert recording.fault is None
    with BagReader(tmp_path / "bag") as bag:
        assert bag.salvaged is None
        assert [m.sample_index for _, _, m in bag.messages()] == [0, 320, 640, 960, 1280]
    recording.destroy_node()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("room", [True, False])
def test_the_node_ends_with_0_only_when_the_bag_is_whole(graph: Any, tmp_path: Path, storage: str, room: bool) -> None:
    from timar_ros.graph.lifecycle import LifecycleClient

    node, executor = graph
    audio = node.create_publisher(AudioChunk, "user/audio", 100)
    arguments = [f"path:={tmp_path / 'bag'}", f"storage:={storage}", "topics:=[user/audio]"]
    command = [sys.executable, "-m", "timar_ros.nodes.recorder", "--ros-args"]
    process = subprocess.Popen(
        command + [part for each in arguments for part in ("-p", each)], stderr=subprocess.PIPE, text=True
    )
    try:
        client = LifecycleClient(node, "/recorder")
        for transition in ("configure", "activate"):
            client.begin(transition)
            spin(executor, client.poll, transition)
        spin(executor, lambda: audio.get_subscription_count() == 1, "discovery")
        if not room:  # from now on its files cannot grow, as on a full disk
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        for index in range(100):
            audio.publish(chunk(index * 320))
        spin(executor, lambda: audio.wait_for_all_acked(Duration(seconds=1)), "the recorder to take all")
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=30)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (0 if room else 1), error
    assert ("writing the bag" in error) == (not room)
    if room:
        with BagReader(tmp_path / "bag") as bag:
            assert len(list(bag.messages())) == 100


def test_loss_counter_counts_gaps_not_repeats() -> None:
    types, store = typestore().types, typestore()
    counter = LossCounter()

    def audio(index: int, stream: int = 0) -> None:
        message = bag_messages.audio_chunk(types, 0, index, 16000, np.zeros((10, 2)), stream_id=stream)
        counter.watch("/a", message.__msgtype__, bytes(store.serialize_cdr(message, message.__msgtype__)))

    for index in (5, 15, 15, 40, 50, 0):  # a late start and a repeat are no loss; 25..39 never came; 0 is late
        audio(index)
    audio(0, stream=1)
    audio(10, stream=1)
    assert counter.samples == {"/a": 15}
    for number in (3, 4, 7, 0, 1):  # 5 and 6 skipped; then the count starts anew
        message = bag_messages.flame_motion(types, 0, 25.0, np.zeros((1, 56)), turn=number)
        counter.watch("/m", message.__msgtype__, bytes(store.serialize_cdr(message, message.__msgtype__)))
    assert counter.turns == {"/m": 2}
