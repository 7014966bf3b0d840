"""Nodes that die are started anew where that is asked for: how often, which, and that the conversation goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("torch")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from support.ros_bench import PATIENCE
from support.tiny_models import tiny_model

from timar_ros.graph.description import GraphOptions, NodeSpec, describe, recorder
from timar_ros.graph.restarts import MOST, WINDOW, Restarts, kept_conversation, restartable
from timar_ros.graph.supervisor import NodeError, Supervisor
from timar_ros.model import save_timar
from timar_ros.msg import AudioChunk, FlameMotion
from timar_ros.ros import messages, qos

RATE = 16000


def test_restarts_are_limited_within_a_window():
    now = [0.0]
    restarts = Restarts(lambda: now[0])
    assert [restarts.another("retarget") for _ in range(MOST + 1)] == [*range(1, MOST + 1), None]
    assert restarts.another("speech") == 1
    now[0] = WINDOW + 1.0
    assert restarts.another("retarget") == 1


def test_what_cannot_go_on_is_not_restarted():
    options = {"source": "recording", "recording": "x", "record": "bag"}
    for speed, clock in ((1.0, False), (0.0, True)):
        specs = {spec.name: spec for spec in describe(GraphOptions(**options, speed=speed))}
        assert not restartable(specs.pop("recorder"))
        assert restartable(specs.pop("audio_source")) is not clock
        assert all(map(restartable, specs.values()))
    assert not restartable(recorder("bag"))
    assert not restartable(describe(GraphOptions(source="bag", bag="b"))[-1])


def test_the_conversation_is_kept_in_a_private_place_and_only_while_it_is_needed():
    def parameters(options):
        return {spec.name: spec.parameters for spec in describe(options)}["timar_inference"]

    with kept_conversation(GraphOptions()) as options:
        assert "state_file" not in parameters(options)
    with kept_conversation(GraphOptions(respawn=True, state_file="mine.npz")) as options:
        assert parameters(options)["state_file"] == "mine.npz"
    with kept_conversation(GraphOptions(respawn=True)) as options:
        folder = Path(parameters(options)["state_file"]).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


class Talk:
    """A graph under the supervisor, two voices, and when its motion came."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("talk", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.stack = contextlib.ExitStack()
        options = self.stack.enter_context(
            kept_conversation(
                GraphOptions(
                    respawn=True, sim="builtin", device="cpu", model=str(folder / "tiny"), only=",".join(names)
                )
            )
        )
        self.told: list[tuple[str, str]] = []
        self.motion: list[int] = []
        supervisor = Supervisor(describe(options), folder / "logs", self.node, self.executor, restarts=Restarts())
        self.supervisor = self.stack.enter_context(supervisor)
        self.supervisor.on_restart = lambda name, what: self.told.append((name, what))
        self.publishers = [
            self.node.create_publisher(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")
        ]
        self.node.create_subscription(
            FlameMotion, "agent/motion", lambda message: self.motion.append(messages.motion(message).turn), qos.motion()
        )
        self.begun, self.sent = time.time(), 0
        self.noise = np.random.default_rng(0).normal(0.0, 0.1, RATE).astype(np.float32)

    def kill(self, name: str) -> None:
        os.kill(self.supervisor.children[name].process.pid, signal.SIGKILL)

    def until(self, holds) -> None:
        """Speak in real time until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"what should happen never did; {self.told}"
            self.supervisor.spin(0.01)
            while self.begun + (self.sent + 640) / RATE <= time.time():
                stamp = round((self.begun + self.sent / RATE) * 1e9)
                chunk = self.noise[self.sent % 12800 :][:640]
                for publisher in self.publishers:
                    publisher.publish(messages.audio_message(stamp, self.sent, RATE, chunk, stream_id=1))
                self.sent += 640

    def end(self) -> None:
        self.stack.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def talk(ros_domain, tmp_path):
    save_timar(tiny_model(1), tmp_path / "tiny", name="tiny")
    made = []

    def start(*names):
        made.append(Talk(tmp_path, *names))
        assert made[0].supervisor.bring_up()
        return made[0]

    yield start
    for each in made:
        each.end()


def test_turns_go_on_after_the_segmenter_or_inference_was_killed(talk, tmp_path):
    made = talk("turn_segmenter", "timar_inference", "retarget", "head_simulator", "audio_sink")
    made.until(lambda: len(made.motion) >= 2)
    for number, name in enumerate(("turn_segmenter", "retarget", "timar_inference"), 1):
        made.kill(name)
        made.until(lambda name=name: (name, "is active again") in made.told)
        seen = len(made.motion)
        made.until(lambda seen=seen: len(made.motion) >= seen + 2)
        assert len(made.told) == 2 * number
        assert made.told[-2] == (name, f"was killed by SIGKILL: restart 1 of at most {MOST} in {WINDOW:.0f} s")
    log = (tmp_path / "logs" / "timar_inference.log").read_text()
    assert log.count("ready after") == 2, "the restarted process's log is to follow the first one's"
    assert log.count("the conversation continues from") == 1


def test_a_node_that_dies_again_and_again_ends_the_graph_with_its_words(talk, monkeypatch):
    monkeypatch.setattr("timar_ros.graph.restarts.MOST", 2)
    monkeypatch.setattr("timar_ros.graph.restarts.WINDOW", 3600.0)
    made = talk("audio_sink")
    made.supervisor.children["audio_sink"].tail.append("planted: the first process's last words")
    for number in (1, 2):
        made.kill("audio_sink")
        made.until(lambda number=number: len(made.told) == 2 * number)
    made.kill("audio_sink")
    with pytest.raises(NodeError, match=r"audio_sink was killed by SIGKILL and was restarted \d times") as caught:
        made.until(lambda: False)
    assert "planted: the first process's last words" in caught.value.tail


def test_a_node_that_does_not_come_up_is_not_restarted(ros_domain, tmp_path):
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("watcher", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spec = NodeSpec("audio_sink", "/", "", {"device_rate": -1}, (), ())
    try:
        with (
            Supervisor([spec], tmp_path, node, executor, restarts=Restarts()) as supervisor,
            pytest.raises(NodeError, match="ended with exit code 2"),
        ):
            supervisor.bring_up()
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
