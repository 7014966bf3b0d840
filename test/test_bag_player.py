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

import bag_factory as factory
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message

from timar_ros.msg import FlameMotion, Turn
from timar_ros.nodes.bag_player import BagPlayer
from timar_ros.nodes.turn_segmenter import TurnSegmenter

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


def play(context: Any, bag: Path, rate: float) -> list[bytes]:
    """The turns that the segmenter makes of the bag, as bytes."""
    executor = SingleThreadedExecutor(context=context)
    listener = rclpy.create_node("listener", context=context)
    turns: list[Turn] = []
    listener.create_subscription(Turn, "turns", turns.append, 10)
    answers = listener.create_publisher(FlameMotion, "agent/motion", 10)
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
            Parameter("expected_subscribers", value=["turns=1"]),
            # A machine that stands still for a moment loses nothing.
            Parameter("max_lateness", value=0.5),
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
        while len(turns) < SECONDS and time.monotonic() < ends:
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
    from rclpy.serialization import deserialize_message

    for number, raw in enumerate(turns):
        turn = deserialize_message(raw, Turn)
        cut = slice(number * 16000, (number + 1) * 16000)
        assert turn.number == number
        assert turn.header.stamp.sec * 10**9 + turn.header.stamp.nanosec == factory.START_NS + number * 10**9
        assert np.asarray(turn.user_speech).tobytes() == factory.voice(SECONDS, "user")[cut].tobytes()
        assert np.asarray(turn.agent_speech).tobytes() == factory.voice(SECONDS, "agent")[cut].tobytes()
        frames = factory.motion(SECONDS, "user")[number * 25 : (number + 1) * 25]
        np.testing.assert_allclose(np.asarray(turn.user_motion).reshape(-1, 56), frames, atol=1e-6)
        assert turn.lost_user_samples == turn.lost_agent_samples == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": ""}, "'path' is empty"),
        ({"path": "/nowhere"}, "no bag at"),
        ({"use_sim_time": True}, "use_sim_time"),
        ({"mapping": "/nowhere.yaml"}, "cannot read the topic mapping"),
    ],
)
def test_what_cannot_be_played_is_refused(context: Any, bag: Path, given: dict[str, Any], said: str) -> None:
    values = {"path": str(bag)} | given
    player = BagPlayer(context=context, parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
    player.trigger_configure()
    assert player.phase == "unconfigured"
    assert said in (player.fault or "")
    player.destroy_node()
