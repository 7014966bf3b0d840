"""Faults on the running graph, each at random moments; a Markdown table of what happened. Exits 1 if a node died.

    python test/system/faults.py [--times 20] [--seed 0] [--only WORDS]

Real nodes in processes of their own over real DDS, with the simulated head; this program speaks for both people and
does the harm. Times are wall time. What is looked at after each fault:

- died: nodes that ended without being killed by this program;
- recovery: turns from the end of the fault (a killed node: from its activation) until motion is made and followed
  again; a turn is 1 s, and the answer to a turn comes when it is over;
- commanded: the largest speed of a joint between two points of a trajectory, as a share of its limit;
- measured: the same between two measured positions of the simulated head, which swings past where it is sent;
- begins away: the largest distance between a trajectory's first point and the measured position at its time [rad];
- said: the commonest complaint on /diagnostics.

A sender's clock is set by its stamps: the clock of this machine stays as it is. CPU at 25 % is every node stopped for
75 of every 100 ms. A full disk is a limit of 0 bytes on the files of the processes that write.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from timar_ros.graph.description import GraphOptions, describe
from timar_ros.graph.lifecycle import LifecycleClient
from timar_ros.graph.supervisor import Child
from timar_ros.msg import AudioChunk, FlameMotion
from timar_ros.retarget import load_profile
from timar_ros.ros import messages, qos

RATE = 16000
ROBOT = "timar_head"
PATIENCE = 60.0
"""Seconds after which a graph that has not recovered is held not to recover."""
START_PATIENCE = 240.0
"""Seconds in which a node must come up."""
SETTLE = 4.0
HOUR, YEAR = 3600.0, 365.25 * 86400.0


@dataclass
class Result:
    """What one fault did."""

    died: list[str] = field(default_factory=list)
    recovery: float = 0.0
    commanded: float = 0.0
    measured: float = 0.0
    away: float = 0.0
    said: Counter[str] = field(default_factory=Counter)


class Graph:
    """The nodes, the two voices and the observer."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, np.random.default_rng(seed)
        rclpy.init()
        self.node = Node("faults")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        options = GraphOptions(sim="builtin", robot=ROBOT, audio_file=str(folder / "agent.wav"), device="cpu")
        self.specs = {spec.name: spec for spec in describe(options)}
        state = {"state_file": str(folder / "conversation.npz")}
        inference = self.specs["timar_inference"]
        self.specs["timar_inference"] = replace(inference, parameters={**inference.parameters, **state})
        self.children: dict[str, Child] = {}
        self.voices = {
            role: self.node.create_publisher(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")
        }
        self.tracker = self.node.create_publisher(FlameMotion, "user/motion", qos.motion())
        self.chunk, self.loss, self.shift, self.flood = 0.04, 0.0, 0.0, 0.0
        self.begun, self.sent, self.flooded = time.time(), 0, 0.0
        self.result = Result()
        self.names = load_profile(ROBOT).names
        self.limit = load_profile(ROBOT).limits()["velocity"]
        self.states: deque[tuple[float, np.ndarray]] = deque(maxlen=2000)
        self.moved = self.answered = 0.0
        listen = self.node.create_subscription
        listen(JointState, "joint_states", self._on_state, qos.commands())
        listen(JointTrajectory, "joint_trajectory", self._on_trajectory, qos.commands())
        listen(FlameMotion, "agent/motion", self._on_motion, qos.motion())
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())
        noise = self.random.normal(0.0, 0.12, RATE * 8)
        self.speech = (noise * (np.sin(np.arange(len(noise)) * 2 * np.pi * 3 / RATE) > 0)).astype(np.float32)

    # Ears -----------------------------------------------------------------------------------------------------------

    def _on_state(self, message: Any) -> None:
        at = messages.to_ns(message.header.stamp) * 1e-9
        position = np.array([message.position[list(message.name).index(name)] for name in self.names])
        if self.states and 0.0 < at - self.states[-1][0] < 0.5:
            speed = np.abs(position - self.states[-1][1]) / max(at - self.states[-1][0], 0.01)
            self.result.measured = max(self.result.measured, float((speed / self.limit).max()))
        self.states.append((at, position))

    def _on_trajectory(self, message: Any) -> None:
        self.moved = time.monotonic()
        start = messages.to_ns(message.header.stamp) * 1e-9
        columns = [self.names.index(name) for name in message.joint_names]
        times = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points])
        rows = np.array([p.positions for p in message.points])
        steps = np.abs(np.diff(rows, axis=0)) / np.diff(times)[:, None] / self.limit[columns]
        self.result.commanded = max(self.result.commanded, float(steps.max(initial=0.0)))
        known = [(at, position) for at, position in self.states if at <= start + times[0]]
        if known and start + times[0] - known[-1][0] < 0.03:
            away = float(np.abs(rows[0] - known[-1][1][columns]).max())
            self.result.away = max(self.result.away, away)

    def _on_motion(self, _message: Any) -> None:
        self.answered = time.monotonic()

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.level != status.OK:
                words = re.sub(r"-?[0-9]+(\.[0-9]+)?", "#", status.message)
                self.result.said[f"{status.name.partition(':')[0]}: {words}"] += 1

    # Voices ---------------------------------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        """Speak and listen for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.002)
            self._speak()

    def _speak(self) -> None:
        size = round(self.chunk * RATE)
        while self.begun + (self.sent + size) / RATE <= time.time():
            stamp = round((self.begun + self.sent / RATE + self.shift) * 1e9)
            place = self.sent % (len(self.speech) - size)
            for role, publisher in self.voices.items():
                if self.random.random() >= self.loss:
                    quiet = (self.sent // (4 * RATE)) % 2 == (role == "user")
                    samples = self.speech[place : place + size] * np.float32(0.0 if quiet else 1.0)
                    publisher.publish(messages.audio_message(stamp, self.sent, RATE, samples, stream_id=1))
            self.sent += size
        while self.flood and self.flooded < time.monotonic():
            frame = self.random.normal(0.0, 0.1, (1, 56))
            self.tracker.publish(messages.motion_message(time.time_ns(), 25.0, frame))
            self.flooded += 1.0 / self.flood

    # Nodes ----------------------------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Processes of nodes; all are configured, then all activated in their order."""
        for name in names:
            self.children[name] = Child(self.specs[name], self.folder)
        for step in ("configure", "activate"):
            for name in names:
                self._step(name, step)

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


Fault = Callable[[Graph], None]


def killed(name: str) -> Fault:
    """kill -9 and a restart."""

    def fault(graph: Graph) -> None:
        graph.signal(signal.SIGKILL, name)
        graph.children[name].join(5.0)
        graph.spin(1.0)
        graph.start(name)

    return fault


def stopped(name: str, seconds: float) -> Fault:
    """SIGSTOP for a while."""

    def fault(graph: Graph) -> None:
        graph.signal(signal.SIGSTOP, name)
        graph.spin(seconds)
        graph.signal(signal.SIGCONT, name)

    return fault


def pulsed(on: float, off: float, seconds: float, *names: str) -> Fault:
    """Stopped for ``off`` of every ``on + off`` seconds."""

    def fault(graph: Graph) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            graph.signal(signal.SIGSTOP, *names)
            graph.spin(off)
            graph.signal(signal.SIGCONT, *names)
            graph.spin(on)

    return fault


def changed(seconds: float, **values: float) -> Fault:
    """Another chunk, loss or flood for a while."""

    def fault(graph: Graph) -> None:
        before = {name: getattr(graph, name) for name in values}
        graph.flooded = time.monotonic()
        for name, value in values.items():
            setattr(graph, name, value)
        graph.spin(seconds)
        for name, value in before.items():
            setattr(graph, name, value)

    return fault


def clock(seconds: float) -> Fault:
    """The sender's clock steps, and stays there for 4 s."""
    return changed(4.0, shift=seconds)


def full_disk(graph: Graph) -> None:
    """No file of the nodes that write may grow for 4 s."""
    writers = [psutil.Process(graph.pid(name)) for name in ("audio_sink", "timar_inference")]
    hard = [process.rlimit(psutil.RLIMIT_FSIZE)[1] for process in writers]
    for process, most in zip(writers, hard, strict=True):
        process.rlimit(psutil.RLIMIT_FSIZE, (0, most))
    graph.spin(4.0)
    for process, most in zip(writers, hard, strict=True):
        process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))


FAULTS: dict[str, Fault] = {
    **{f"kill -9 and restart of {name}": killed(name) for name in ("turn_segmenter", "timar_inference", "retarget")},
    "kill -9 and restart of audio_sink": killed("audio_sink"),
    **{
        f"SIGSTOP of {name} for {seconds:g} s": stopped(name, seconds)
        for name in ("turn_segmenter", "timar_inference", "retarget")
        for seconds in (0.3, 2.0, 5.0)
    },
    "30 % of the audio lost": changed(4.0, loss=0.3),
    **{f"sender's clock {by:+g} s": clock(by) for by in (10.0, -10.0)},
    **{f"sender's clock {by / HOUR:+g} h": clock(by) for by in (HOUR, -HOUR)},
    **{f"sender's clock {by / YEAR:+g} years": clock(by) for by in (50 * YEAR, -50 * YEAR)},
    "inference slower than real time": pulsed(0.1, 1.4, 6.0, "timar_inference"),
    "CPU at 25 %": pulsed(0.025, 0.075, 6.0),
    "disk full": full_disk,
    "audio in chunks of 10 ms": changed(4.0, chunk=0.01),
    "user/motion at 1 kHz": changed(4.0, flood=1000.0),
}


def measure(graph: Graph, fault: Fault) -> Result:
    """Do the harm at a random moment; wait until the head follows new motion again."""
    graph.spin(SETTLE + graph.random.random())
    graph.result = Result()
    fault(graph)
    over = time.monotonic()
    while not (graph.answered > over and graph.moved > graph.answered) and time.monotonic() - over < PATIENCE:
        graph.spin(0.02)
    graph.result.recovery = time.monotonic() - over
    graph.spin(2.0)
    graph.result.died = graph.dead()
    return graph.result


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="how often each fault is tried")
    parser.add_argument("--seed", type=int, default=0, help="what the random moments come from")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    args = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    died = 0
    with tempfile.TemporaryDirectory() as folder:
        graph = Graph(Path(folder), args.seed)
        with contextlib.ExitStack() as stack:
            stack.callback(graph.end)
            graph.start(*graph.specs)
            print(
                "| fault | times | died | recovery, turns (worst) | commanded | measured | begins away [rad] | said |"
            )
            print("|---|---|---|---|---|---|---|---|", flush=True)
            for name, fault in FAULTS.items():
                if args.only not in name:
                    continue
                results = [measure(graph, fault) for _ in range(args.times)]
                ends = [end for result in results for end in result.died]
                died += len(ends)
                said: Counter[str] = sum((result.said for result in results), Counter())
                worst = max(result.recovery for result in results)
                recovered = f"{worst:.1f}" if worst < PATIENCE else "none"
                print(
                    f"| {name} | {len(results)} | {', '.join(ends) or '0'} | {recovered} "
                    f"| {max(result.commanded for result in results):.2f} "
                    f"| {max(result.measured for result in results):.2f} "
                    f"| {max(result.away for result in results):.3f} "
                    f"| {said.most_common(1)[0][0] if said else ''} |",
                    flush=True,
                )
                for dead in [name for name, child in graph.children.items() if child.process.poll() is not None]:
                    graph.start(dead)
    return 1 if died else 0


if __name__ == "__main__":
    sys.exit(main())
