"""Steering a running conversation: reset, interruption, style, echo guard; nodes in this process, real services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Float32, Header
from std_srvs.srv import Trigger
from support.tiny_models import tiny_model

from timar_ros.model import save_timar
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn
from timar_ros.nodes.audio_sink import AudioSink
from timar_ros.nodes.avatar_bridge import AvatarBridge
from timar_ros.nodes.timar_inference import TimarInference
from timar_ros.nodes.turn_segmenter import TurnSegmenter
from timar_ros.ros import messages, qos
from timar_ros.ros.base import OK, WARN
from timar_ros.srv import SetStyle
from timar_ros.streaming.turns.turn_types import TurnInput

RATE = 16000
NAN = float("nan")


class World:
    """A context of its own with an executor, the nodes under test, and a node for everything else."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.node = Node("world", context=self.context)
        self.executor.add_node(self.node)
        self.nodes: list[Any] = []

    def add(self, cls: Callable[..., Any], **parameters: Any) -> Any:
        made = cls(
            context=self.context, parameter_overrides=[Parameter(name, value=v) for name, v in parameters.items()]
        )
        self.executor.add_node(made)
        self.nodes.append(made)
        made.trigger_configure()
        assert made.phase == "inactive", made.fault
        made.trigger_activate()
        assert made.phase == "active", made.fault
        return made

    def until(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + 120.0
        while not condition():
            assert time.monotonic() < end, f"timed out waiting for {what}"
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, kind: type, name: str, request: Any = None) -> Any:
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, name)
        future = client.call_async(request or kind.Request())
        self.until(future.done, f"the answer of {name}")
        return future.result()

    def close(self) -> None:
        for node in self.nodes:
            node.end()
            node.destroy_node()
        self.node.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()


@pytest.fixture
def world(ros_domain: int) -> Iterator[World]:
    made = World()
    yield made
    made.close()


def tiny_folder(folder: Path) -> Path:
    """A model's folder."""
    save_timar(tiny_model(), folder / "model")
    return folder / "model"


def turn_of(number: int) -> TurnInput:
    rng = np.random.default_rng(number)
    speech = rng.normal(0, 0.1, (2, RATE)).astype(np.float32)
    return TurnInput(number, number * 1_000_000_000, 1.0, speech[0], speech[1], None)


def conversation(world: World, folder: Path) -> tuple[Callable[[int], np.ndarray], Any]:
    """A running inference node and a function that has it answer turn k."""
    answers: dict[int, np.ndarray] = {}
    world.node.create_subscription(
        FlameMotion, "agent/motion", lambda m: answers.__setitem__(m.turn, messages.motion(m).frames), qos.motion()
    )
    turns = world.node.create_publisher(Turn, "turns", qos.turns())
    node = world.add(TimarInference, model=str(folder), device="cpu", expected_subscribers=["agent/motion=1"])
    world.until(turns.get_subscription_count, "the inference node")

    def ask(number: int) -> np.ndarray:
        answers.pop(number, None)
        turns.publish(messages.turn_message(turn_of(number), 25.0))
        world.until(lambda: number in answers, f"turn {number}")
        return answers[number]

    return ask, node


def test_reset_forgets_the_partner(world: World, tmp_path: Path) -> None:
    ask, _ = conversation(world, tiny_folder(tmp_path))
    ask(0)
    with_history = ask(1)
    answer = world.call(Trigger, "timar_inference/reset")
    assert answer.success
    fresh = ask(1)
    assert not np.array_equal(fresh, with_history)
    world.call(Trigger, "timar_inference/reset")
    np.testing.assert_array_equal(ask(1), fresh)  # no trace of anything before
    world.call(Trigger, "timar_inference/reset")
    ask(0)
    np.testing.assert_array_equal(ask(1), with_history)


def test_style_changes_from_the_next_turn_and_is_checked(world: World, tmp_path: Path) -> None:
    infos: list[StreamInfo] = []
    world.node.create_subscription(StreamInfo, "stream_info", infos.append, qos.latched())
    ask, _ = conversation(world, tiny_folder(tmp_path))
    before = ask(0)
    request = SetStyle.Request(temperature=[0.0])
    answer = world.call(SetStyle, "timar_inference/set_style", request)
    assert answer.success, answer.message
    world.call(Trigger, "timar_inference/reset")
    assert not np.array_equal(ask(0), before)
    world.until(lambda: infos and infos[-1].temperature == 0.0, "the new stream_info")
    for wrong, words in (
        ({"guidance": -1.0}, "guidance"),
        ({"temperature": 1000.0}, "temperature"),
        ({"speaking_gain": 0.5}, "retarget"),
        ({"liveliness": 1.5}, "joint head"),
    ):
        values = {name: [value] for name, value in wrong.items()}
        refused = world.call(SetStyle, "timar_inference/set_style", SetStyle.Request(**values))
        assert not refused.success
        assert words in refused.message


def test_cancel_silences_what_is_queued_and_nothing_after(world: World, tmp_path: Path) -> None:
    heard: list[messages.Audio] = []
    world.node.create_subscription(
        AudioChunk, "agent/audio_out", lambda m: heard.append(messages.audio(m)), qos.audio()
    )
    cancelled: list[Header] = []
    world.node.create_subscription(Header, "cancel", cancelled.append, qos.commands())
    audio = world.node.create_publisher(AudioChunk, "agent/audio", qos.audio())
    conversation(world, tiny_folder(tmp_path))
    sink = world.add(AudioSink, playback_delay=4.0)
    world.until(lambda: audio.get_subscription_count() and sink.count_publishers("cancel"), "the sink")
    world.until(lambda: world.node.count_subscribers("cancel") >= 2, "the sink's ear for cancellations")

    def say(stamp: int, first: int, value: float) -> None:
        for block in range(10):
            samples = np.full(320, value, np.float32)
            audio.publish(messages.audio_message(stamp + block * 20_000_000, first + block * 320, RATE, samples))

    now = world.node.get_clock().now().nanoseconds
    say(now, 0, 0.25)
    world.until(lambda: len(sink._held) == 10, "queued audio")
    assert world.call(Trigger, "timar_inference/cancel").success
    world.until(lambda: cancelled and not sink._held, "silence")
    say(now + 200_000_000, 3200, 0.75)  # published before the cancellation, on its way until now
    say(now + 1_000_000_000, 3200, 0.5)
    world.until(lambda: sum(len(c.samples) for c in heard) >= 3200, "what is said afterwards")
    assert {float(c.samples[0, 0]) for c in heard} == {0.5}


def test_what_was_not_said_any_more_is_no_part_of_the_conversation(world: World) -> None:
    turns: dict[int, TurnInput] = {}

    def take(message: Turn) -> None:
        if message.phase == Turn.COMPLETE:
            turns[message.number] = messages.turn(message)

    world.node.create_subscription(Turn, "turns", take, qos.turns())
    user = world.node.create_publisher(AudioChunk, "user/audio", qos.audio())
    agent = world.node.create_publisher(AudioChunk, "agent/audio", qos.audio())
    cancel = world.node.create_publisher(Header, "cancel", qos.commands())
    segmenter = world.add(TurnSegmenter, mode="anticipatory", planning_lead=0.0, expected_subscribers=["turns=1"])
    for publisher in (user, agent, cancel):
        world.until(publisher.get_subscription_count, "the segmenter")
    start = world.node.get_clock().now().nanoseconds
    voice = np.full(RATE, 0.1, np.float32)

    def say(publisher: Any, name: str, second: float, samples: np.ndarray) -> None:
        before = segmenter.statistics.counted(name)
        index = round(second * RATE)
        stamp = start + round(second * 1e9)
        publisher.publish(messages.audio_message(stamp, index, RATE, samples))
        world.until(lambda: segmenter.statistics.counted(name) > before, name)

    for second in range(4):  # synthesised far ahead of its time
        say(agent, "agent/audio", second, voice)
    for block in range(15):
        say(user, "user/audio", block / 10, voice[:1600])
    at = messages.to_stamp(start + 1_500_000_000)
    cancel.publish(Header(stamp=at))
    world.until(lambda: segmenter.statistics.counted("interruptions"), "the interruption")
    say(agent, "agent/audio", 1.4, voice[:1600])  # on its way
    say(agent, "agent/audio", 3.2, voice)  # the next reply
    for block in range(15, 42):
        say(user, "user/audio", block / 10, voice[:1600])
    world.until(lambda: len(turns) >= 4, "four turns")
    spoken = np.concatenate([turns[number].agent_speech for number in range(4)]) > 0.05
    level = spoken.reshape(40, -1).mean(axis=1)  # of tenths of a second
    assert (level[:14] == 1.0).all()
    assert (level[16:32] == 0.0).all()
    assert (level[33:] == 1.0).all()


def test_an_interrupted_avatar_closes_its_mouth(world: World) -> None:
    mouth: list[float] = []
    world.node.create_subscription(Float32, "agent/mouth", lambda m: mouth.append(m.data), qos.motion())
    motion = world.node.create_publisher(FlameMotion, "agent/motion", qos.motion())
    cancel = world.node.create_publisher(Header, "cancel", qos.commands())
    info = world.node.create_publisher(StreamInfo, "stream_info", qos.latched())
    info.publish(StreamInfo(playback_delay=2.0))
    avatar = world.add(AvatarBridge, blendshapes=False)
    for publisher in (motion, cancel):
        world.until(publisher.get_subscription_count, "the avatar")
    world.until(lambda: avatar._info is not None, "stream_info")
    frames = np.zeros((250, 56), np.float32)
    frames[:, 50] = 0.3
    now = world.node.get_clock().now().nanoseconds
    motion.publish(messages.motion_message(now, 25.0, frames))
    world.until(lambda: mouth and mouth[-1] > 0.5, "an open mouth")
    now = world.node.get_clock().now().nanoseconds
    cancel.publish(Header(stamp=messages.to_stamp(now)))
    world.until(lambda: mouth[-1] == 0.0, "a closed mouth")
    before = len(mouth)
    motion.publish(messages.motion_message(now, 25.0, frames[:25]))  # still on its way
    motion.publish(messages.motion_message(now + 2_000_000_000, 25.0, frames[:5]))  # said after it
    world.until(lambda: len(mouth) >= before + 5, "the next reply")
    assert min(mouth[before:]) > 0.5
    assert avatar.statistics.counted("frames cancelled") >= 225


def test_trouble_is_reported_while_it_is_new(world: World) -> None:
    audio = world.node.create_publisher(AudioChunk, "agent/audio", qos.audio())
    sink = world.add(AudioSink, playback_delay=0.0)
    world.until(audio.get_subscription_count, "the sink")
    late = world.node.get_clock().now().nanoseconds - 5_000_000_000
    audio.publish(messages.audio_message(late, 0, RATE, np.zeros(320, np.float32)))
    world.until(lambda: sink.statistics.counted("underruns"), "an underrun")
    assert sink.diagnose()[:2] == (WARN, "audio came too late")
    assert sink.diagnose()[0] == OK


def test_the_user_is_not_heard_while_the_robot_is(world: World) -> None:
    turns: list[TurnInput] = []
    world.node.create_subscription(Turn, "turns", lambda m: turns.append(messages.turn(m)), qos.turns())
    user = world.node.create_publisher(AudioChunk, "user/audio", qos.audio())
    agent = world.node.create_publisher(AudioChunk, "agent/audio", qos.audio())
    info = world.node.create_publisher(StreamInfo, "stream_info", qos.latched())
    info.publish(StreamInfo(playback_delay=0.5, turn_duration=1.0, mode="reactive", model="stand-in"))
    segmenter = world.add(TurnSegmenter, echo_leak=0.0, echo_hang=0.1, expected_subscribers=["turns=1"])
    world.until(lambda: segmenter._delay_ns == 500_000_000, "the delay")
    world.until(lambda: user.get_subscription_count() and agent.get_subscription_count(), "the segmenter")
    start = world.node.get_clock().now().nanoseconds
    speaking = np.full(RATE, 0.1, np.float32)
    silent = np.zeros(RATE, np.float32)
    # The robot speaks in turn 0; with the delay it is heard from 0.5 s to 1.6 s.
    for second, voice in enumerate((speaking, silent, silent)):
        at = start + second * 1_000_000_000
        agent.publish(messages.audio_message(at, second * RATE, RATE, voice, end=second == 2))
        world.until(lambda n=second: segmenter.statistics.counted("agent/audio") > n, "agent audio")
        user.publish(messages.audio_message(at, second * RATE, RATE, np.full(RATE, 0.2, np.float32), end=second == 2))
    world.until(lambda: len(turns) == 3, "three turns")
    levels = [np.abs(t.user_speech).reshape(10, -1).mean(axis=1) for t in turns]
    np.testing.assert_allclose(levels[0], [0.2] * 5 + [0.0] * 5, atol=0.01)
    np.testing.assert_allclose(levels[1], [0.0] * 6 + [0.2] * 4, atol=0.01)
    np.testing.assert_allclose(levels[2], [0.2] * 10, atol=0.01)
