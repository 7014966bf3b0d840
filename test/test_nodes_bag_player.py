"""A bag played into the nodes: the same turns at any pace, and in the bag's own time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 in this environment")
pytest.importorskip("timar_ros.msg", reason="the interfaces are not built in this environment")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from support import bag_factory as factory

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import TOPICS, BagReader, BagWriter
from timar_ros.bags.bag_foreign import Inputs
from timar_ros.bags.replay import turns_of_events
from timar_ros.msg import FlameMotion, StreamInfo, Turn, VoiceTiming
from timar_ros.nodes.bag_player import BagPlayer
from timar_ros.nodes.turn_segmenter import TurnSegmenter
from timar_ros.ros import qos
from timar_ros.ros.messages import turn
from timar_ros.streaming.sampling_options import PipelineOptions

SECONDS = 3.0


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.write_bag(tmp_path_factory.mktemp("played") / "bag", SECONDS, joints=False)


@pytest.fixture
def context(ros_domain: int) -> Iterator[Any]:
    made = rclpy.Context()
    rclpy.init(context=made, domain_id=ros_domain)
    yield made
    made.try_shutdown()


def play(
    context: Any,
    bag: Path,
    rate: float,
    count: int = int(SECONDS),
    told: list[Any] | None = None,
    *,
    to_its_end: bool = False,
    **timing: Any,
) -> list[bytes]:
    """The first turns that the segmenter makes of the bag, as bytes.

    :param told: gets what is said of the agent's streams (rolling mode).
    :param to_its_end: play on until the player has finished.
    :param timing: parameters of the segmenter.
    """
    executor = SingleThreadedExecutor(context=context)
    listener = rclpy.create_node("listener", context=context)
    turns: list[Turn] = []
    listener.create_subscription(Turn, "turns", turns.append, 10)
    if told is not None:
        listener.create_subscription(VoiceTiming, "agent/voice_timing", told.append, 10)
    answers = listener.create_publisher(FlameMotion, "agent/motion", 10)
    info = listener.create_publisher(StreamInfo, "stream_info", qos.latched())
    known = {name: value for name, value in timing.items() if hasattr(StreamInfo, name)}
    info.publish(StreamInfo(turn_duration=1.0, **{"mode": "reactive", **known}))
    given = {
        "path": str(bag),
        "speed": rate,
        "start_delay": 0.0,
        "expected_subscribers": ["user/audio=1", "agent/audio=1"],
    }
    player = BagPlayer(context=context, parameter_overrides=[Parameter(k, value=v) for k, v in given.items()])
    segmenter = TurnSegmenter(
        context=context,
        parameter_overrides=[
            Parameter("use_sim_time", value=True),
            Parameter("expected_subscribers", value=["turns=2"]),
            # A machine that stands still for a moment loses nothing.
            *(Parameter(name, value=value) for name, value in {"max_lateness": 0.5, **timing}.items()),
        ],
    )
    nodes = (listener, player, segmenter)
    for node in nodes:
        executor.add_node(node)
    try:
        for node in (segmenter, player):
            node.trigger_configure()
            assert node.fault is None, node.fault
        segmenter.trigger_activate()
        player.trigger_activate()
        answered = 0
        ends = time.monotonic() + 120
        while (len(turns) < count or (to_its_end and not player.finished.is_set())) and time.monotonic() < ends:
            executor.spin_once(timeout_sec=0.02)
            for turn in turns[answered:]:
                answers.publish(FlameMotion(turn=turn.number, rate=25.0))
            answered = len(turns)
        return [serialize_message(turn) for turn in turns]
    finally:
        for node in (player, segmenter):
            node.end()
        executor.shutdown()
        for node in nodes:
            node.destroy_node()


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.5, 1.0, 4.0, 0.0])
def test_turns_do_not_depend_on_the_pace(context: Any, bag: Path, rate: float) -> None:
    turns = play(context, bag, rate)
    assert len(turns) == SECONDS
    for number, raw in enumerate(turns):
        given = deserialize_message(raw, Turn)
        cut = slice(number * 16000, (number + 1) * 16000)
        assert given.number == number
        assert given.header.stamp.sec * 10**9 + given.header.stamp.nanosec == factory.START_NS + number * 10**9
        assert np.asarray(given.user_speech).tobytes() == factory.voice(SECONDS, "user")[cut].tobytes()
        assert np.asarray(given.agent_speech).tobytes() == factory.voice(SECONDS, "agent")[cut].tobytes()
        frames = factory.motion(SECONDS, "user")[number * 25 : (number + 1) * 25]
        np.testing.assert_allclose(np.asarray(given.user_motion).reshape(-1, 56), frames, atol=1e-6)
        assert given.lost_user_samples == given.lost_agent_samples == 0


LOST = {
    "middle of a turn": [(1.2, 1.6)],
    "a turn's end": [(0.7, 1.0)],
    "across a turn's end": [(1.88, 2.1)],
    "the last frame": [(0.96, 1.0), (1.96, 2.0)],
    "a whole turn": [(1.0, 2.3)],
    "from some point to the end": [(1.3, 9.0)],
}


def lossy_bag(path: Path, lost: list[tuple[float, float]], of: str = "/user/motion") -> Path:
    """The bag without a topic's messages of these times [s]."""
    kept: list[tuple[int, str, Any]] = []
    with BagWriter(path) as bag, BagReader(factory.write_bag(path.with_name("whole"), SECONDS, joints=False)) as whole:
        for topic, arrived, message in whole.messages(("/user/audio", "/agent/audio", "/user/motion")):
            second = (bag_messages.stamp_ns(message.header.stamp) - factory.START_NS) / 1e9
            if topic != of or not any(a - 1e-6 <= second < b - 1e-6 for a, b in lost):
                kept.append((arrived, topic, message))
        for topic in dict.fromkeys(topic for _, topic, _ in kept):
            bag.add_topic(topic, TOPICS[topic.lstrip("/")])
        for arrived, topic, message in kept:
            bag.write(topic, arrived, message)
    return path


def check_turns(context: Any, path: Path, seconds: float) -> None:
    """The turns are those of `timar replay`, though the clock stands still until each is answered; in time [s]."""
    with BagReader(path) as bag:
        wanted = [each for _, each in turns_of_events(Inputs(bag).events(), 1.0, PipelineOptions())]
    begun = time.monotonic()
    played = [turn(deserialize_message(raw, Turn)) for raw in play(context, path, 0.0, to_its_end=True)]
    assert time.monotonic() - begun < seconds  # answer_timeout is 60 s
    assert len(played) == len(wanted) == SECONDS
    for one, other in zip(played, wanted, strict=True):
        assert (one.number, one.stamp_ns, one.lost_user) == (other.number, other.stamp_ns, other.lost_user)
        np.testing.assert_array_equal(one.user_speech, other.user_speech)
        np.testing.assert_array_equal(one.agent_speech, other.agent_speech)
        assert (one.user_motion is None) == (other.user_motion is None)
        if one.user_motion is not None:
            np.testing.assert_array_equal(one.user_motion, other.user_motion)


@pytest.mark.parametrize("place", LOST)
def test_frames_that_the_bag_lost_are_not_waited_for(context: Any, tmp_path: Path, place: str) -> None:
    check_turns(context, lossy_bag(tmp_path / "bag", LOST[place]), 30.0)


@pytest.mark.slow
def test_sound_that_the_bag_lost_is_waited_for_for_seconds_only(context: Any, tmp_path: Path) -> None:
    check_turns(context, lossy_bag(tmp_path / "bag", [(0.9, 1.0), (1.4, 1.6)], of="/user/audio"), 45.0)


HOP = 0.2
ROLLING: dict[str, Any] = {"mode": "rolling", "hop": HOP, "hop_margin": 0.12, "look_ahead": 0.4}


def mixed_bag(path: Path) -> Path:
    """A live conversation of 4 s: an utterance that was ahead of its time, one that was not, and another ahead."""
    user, agent = factory.voice(4.0, "user"), np.random.default_rng(5).uniform(-0.5, 0.5, 16000).astype(np.float32)
    events: list[tuple[float, str, Any]] = []
    with BagWriter(path) as bag:
        for short, msgtype in TOPICS.items():
            bag.add_topic(f"/{short}", msgtype)
        types = bag.types

        def at(second: float) -> int:
            return factory.START_NS + round(second * 1e9)

        def chunks(role: str, samples: Any, said: float, lead: float, stream: int) -> None:
            for first in range(0, len(samples), 320):
                part, stamp = samples[first : first + 320], at(said + first / 16000)
                end = role == "agent" and first + 320 >= len(samples)
                message = bag_messages.audio_chunk(types, stamp, first, 16000, part, stream_id=stream, end=end)
                # Late: each chunk comes when it was said. Ahead: all at once.
                arrival = said - lead if lead else said + (first + len(part)) / 16000 + 0.001
                events.append((arrival, f"/{role}/audio", message))

        chunks("user", user, 0.0, 0.0, 0)
        for stream, (said, lead) in enumerate([(0.7, 0.45), (1.9, 0.0), (3.1, 0.45)], start=1):
            chunks("agent", agent[:9600], said, lead, stream)
            timing = types["timar_ros/msg/VoiceTiming"](
                header=bag_messages.header(types, at(said)), stream_id=stream, delay=0.0 if lead else 0.32
            )
            events.append((said - lead + 0.03, "/agent/voice_timing", timing))
        for second, topic, message in sorted(events, key=lambda event: event[0]):
            bag.write(topic, at(second), message)
    return path


def test_speech_that_was_ahead_is_ahead_however_fast_the_bag_is_played(context: Any, tmp_path: Path) -> None:
    """At speed 0 stamps leap; each utterance is still heard as it was, and each hop holds what it held."""
    path = mixed_bag(tmp_path / "bag")
    with BagReader(path) as bag:
        inputs = Inputs(bag)
        wanted = [
            each
            for _, each in turns_of_events(inputs.events(), 1.0, PipelineOptions(**ROLLING), inputs.streams_ahead())
        ]
    told: list[VoiceTiming] = []
    raw = play(context, path, 0.0, 19, told, max_lateness=0.1, **ROLLING)
    played = [turn(deserialize_message(each, Turn)) for each in raw]
    assert {each.stream_id: each.delay for each in told} == {1: 0.0, 2: pytest.approx(0.32), 3: 0.0}
    for one, other in zip(played, wanted, strict=False):
        assert (one.number, one.stamp_ns) == (other.number, other.stamp_ns)
        np.testing.assert_array_equal(one.user_speech, other.user_speech)
        np.testing.assert_array_equal(one.agent_speech, other.agent_speech)
        assert (one.agent_ahead is None) == (other.agent_ahead is None), one.number
        if one.agent_ahead is not None:
            np.testing.assert_array_equal(one.agent_ahead, other.agent_ahead)
    assert {each.agent_ahead is None for each in played} == {True, False}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": ""}, "'path' is empty"),
        ({"path": "/nowhere"}, "no bag at"),
        ({"use_sim_time": True}, "use_sim_time"),
        ({"mapping": "/nowhere.yaml"}, "topic mapping /nowhere.yaml not found"),
    ],
)
def test_what_cannot_be_played_is_refused(context: Any, bag: Path, given: dict[str, Any], said: str) -> None:
    values = {"path": str(bag)} | given
    player = BagPlayer(context=context, parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
    player.trigger_configure()
    assert player.phase == "unconfigured"
    assert said in (player.fault or "")
    player.destroy_node()
