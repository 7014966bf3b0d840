"""A running graph for measurements: real nodes in processes of their own over DDS, two voices, and an observer."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from timar_ros.graph.description import GraphOptions, describe
from timar_ros.graph.domain import free_domain
from timar_ros.graph.lifecycle import LifecycleClient
from timar_ros.graph.supervisor import Child
from timar_ros.motion import MODEL_RATE
from timar_ros.msg import AudioChunk, FlameMotion
from timar_ros.retarget import load_profile
from timar_ros.ros import messages, qos
from timar_ros.ros.node_process import repeat_losses_soon

ROBOT = "timar_head"
START_PATIENCE = 240.0
"""Seconds in which a node must come up."""


@dataclass
class Seen:
    """What the observer has seen of the head and the diagnostics; speeds are shares of a joint's limit."""

    commanded: float = 0.0
    """Largest speed between two points of a trajectory."""
    measured: float = 0.0
    """Largest speed between two measured positions."""
    away: float = 0.0
    """Largest distance between a trajectory's first point and the measured position at its time [rad]."""
    said: Counter[str] = field(default_factory=Counter)
    """Complaints on /diagnostics, without their numbers."""


def noise_voices(random: np.random.Generator) -> dict[str, np.ndarray]:
    """8 s of loud syllables of noise at 16 kHz: the user has the first 4 s, the agent the other 4 s."""
    noise = random.normal(0.0, 0.12, MODEL_RATE * 8)
    speech = (noise * (np.sin(np.arange(len(noise)) * 2 * np.pi * 3 / MODEL_RATE) > 0)).astype(np.float32)
    half = len(speech) // 2
    silence = np.zeros(half, np.float32)
    return {"user": np.concatenate([speech[:half], silence]), "agent": np.concatenate([silence, speech[half:]])}


class TalkingGraph:
    """The nodes, the two voices and the observer. Its nodes hear only each other (a DDS domain of their own).

    :param voices: what each person says, over and over: ``user`` and ``agent``, [n] at 16 kHz; None: noise.
    """

    def __init__(self, folder: Path, seed: int = 0, voices: dict[str, np.ndarray] | None = None) -> None:
        self.folder, self.random = folder, np.random.default_rng(seed)
        rclpy.init()
        self.node = Node("talking_graph")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        options = GraphOptions(sim="builtin", robot=ROBOT, audio_file=str(folder / "agent.wav"), device="cpu")
        self.specs = {spec.name: spec for spec in describe(options)}
        self.set_parameters("timar_inference", state_file=str(folder / "conversation.npz"))
        self.children: dict[str, Child] = {}
        self.speech = voices or noise_voices(self.random)
        self.publishers = {
            role: self.node.create_publisher(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")
        }
        self.tracker = self.node.create_publisher(FlameMotion, "user/motion", qos.motion())
        self.chunk, self.loss, self.shift, self.flood = 0.04, 0.0, 0.0, 0.0
        self.begun, self.sent, self.flooded = time.time(), 0, 0.0
        self.seen = Seen()
        self.profile = load_profile(ROBOT)
        self.names, self.limit = self.profile.names, self.profile.limits()["velocity"]
        self.states: deque[tuple[float, np.ndarray]] = deque(maxlen=2000)
        self.moved = self.answered = 0.0
        listen = self.node.create_subscription
        listen(JointState, "joint_states", self._on_state, qos.commands())
        listen(JointTrajectory, "joint_trajectory", self._on_trajectory, qos.commands())
        listen(FlameMotion, "agent/motion", self._on_motion, qos.motion())
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())

    def set_parameters(self, name: str, **values: Any) -> None:
        """Parameters of a node, from its next start on."""
        spec = self.specs[name]
        self.specs[name] = replace(spec, parameters={**spec.parameters, **values})

    # Ears -----------------------------------------------------------------------------------------------------------

    def _on_state(self, message: Any) -> None:
        at = messages.to_ns(message.header.stamp) * 1e-9
        position = np.array([message.position[list(message.name).index(name)] for name in self.names])
        if self.states and 0.0 < at - self.states[-1][0] < 0.5:
            speed = np.abs(position - self.states[-1][1]) / max(at - self.states[-1][0], 0.01)
            self.seen.measured = max(self.seen.measured, float((speed / self.limit).max()))
        self.states.append((at, position))

    def _on_trajectory(self, message: Any) -> None:
        self.moved = time.monotonic()
        start = messages.to_ns(message.header.stamp) * 1e-9
        columns = [self.names.index(name) for name in message.joint_names]
        times = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points])
        rows = np.array([p.positions for p in message.points])
        steps = np.abs(np.diff(rows, axis=0)) / np.diff(times)[:, None] / self.limit[columns]
        self.seen.commanded = max(self.seen.commanded, float(steps.max(initial=0.0)))
        known = [(at, position) for at, position in self.states if at <= start + times[0]]
        if known and start + times[0] - known[-1][0] < 0.03:
            away = float(np.abs(rows[0] - known[-1][1][columns]).max())
            self.seen.away = max(self.seen.away, away)

    def _on_motion(self, _message: Any) -> None:
        self.answered = time.monotonic()

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.level != status.OK:
                words = re.sub(r"-?[0-9]+(\.[0-9]+)?", "#", status.message)
                self.seen.said[f"{status.name.partition(':')[0]}: {words}"] += 1

    # Voices ---------------------------------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        """Speak and listen for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.002)
            self._speak()

    def _speak(self) -> None:
        size = round(self.chunk * MODEL_RATE)
        while self.begun + (self.sent + size) / MODEL_RATE <= time.time():
            stamp = round((self.begun + self.sent / MODEL_RATE + self.shift) * 1e9)
            for role, publisher in self.publishers.items():
                if self.random.random() >= self.loss:
                    samples = self.speech[role].take(np.arange(self.sent, self.sent + size), mode="wrap")
                    publisher.publish(messages.audio_message(stamp, self.sent, MODEL_RATE, samples, stream_id=1))
            self.sent += size
        while self.flood and self.flooded < time.monotonic():
            frame = self.random.normal(0.0, 0.1, (1, 56))
            self.tracker.publish(messages.motion_message(time.time_ns(), 25.0, frame))
            self.flooded += 1.0 / self.flood

    # Nodes ----------------------------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Processes of nodes; all are configured, then all activated in their order."""
        for name in names:
            self.children[name] = self.child(name)
        for step in ("configure", "activate"):
            for name in names:
                self._step(name, step)

    def child(self, name: str) -> Child:
        """A node's new process."""
        return Child(self.specs[name], self.folder)

    def _step(self, name: str, step: str) -> None:
        client = LifecycleClient(self.node, self.specs[name].full_name)
        client.begin(step)
        deadline = time.monotonic() + START_PATIENCE
        while not (done := client.poll()):
            if done is False or time.monotonic() > deadline or self.children[name].process.poll() is not None:
                raise SystemExit("\n  ".join([f"{name} could not {step}", *self.children[name].tail]))
            self.spin(0.01)

    def pid(self, name: str) -> int:
        """A node's process."""
        return self.children[name].process.pid

    def signal(self, number: int, *names: str) -> None:
        """Send a signal to nodes; to all where none is named."""
        for name in names or self.children:
            os.kill(self.pid(name), number)

    def dead(self) -> list[str]:
        """Nodes that ended."""
        return [f"{name} {child.how_it_ended()}" for name, child in self.children.items() if child.how_it_ended()]

    def end(self) -> None:
        """End all nodes in order."""
        for child in self.children.values():
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGINT)
        for child in self.children.values():
            if not child.join(10.0):
                child.process.kill()
        rclpy.try_shutdown()


@contextmanager
def running(make: Callable[[], TalkingGraph]) -> Iterator[TalkingGraph]:
    """A graph whose nodes all are active; they end with it."""
    with free_domain() as domain:
        os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        repeat_losses_soon()
        graph = make()
        try:
            graph.start(*graph.specs)
            yield graph
        finally:
            graph.end()
