"""Starts the graph's nodes as child processes, brings their lifecycle up, watches them, and ends them in order.

For where `launch` is not installed, and where a program wants to run the graph and know how it went.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from rclpy.executors import Executor
from rclpy.node import Node

from timar_ros.nodes.graph import PACKAGE, NodeSpec
from timar_ros.nodes.lifecycle_client import LifecycleClient
from timar_ros.nodes.process import SUPERVISED

TAIL = 20
"""Last log lines of a node that are shown when it fails."""


class NodeError(Exception):
    """A node died or refused a transition; the message names it, and ``tail`` holds its last log lines.

    ``refused``: it is alive and said why it cannot do what it was asked to.
    """

    def __init__(self, name: str, reason: str, tail: Sequence[str], *, refused: bool = False) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.tail = list(tail)
        self.refused = refused


class Child:
    """One node's process. Its output goes line by line into a log file, to ``echo``, and the last lines are kept."""

    def __init__(self, spec: NodeSpec, folder: Path, echo: Callable[[str, str], None] | None = None) -> None:
        self.spec = spec
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._echo = echo
        self._log = folder / f"{spec.name}.log"
        parameters = folder / f"{spec.name}.yaml"
        parameters.write_text(yaml.safe_dump({"/**": {"ros__parameters": spec.parameters}}), encoding="utf-8")
        self.process = subprocess.Popen(
            command(spec, parameters),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", SUPERVISED: str(os.getpid())},
            # A terminal's Ctrl-C is for the supervisor, which then ends the nodes in order.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"log of {spec.name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self._log.open("w", encoding="utf-8") as log:
            for line in self.process.stdout:
                self.tail.append(line.rstrip())
                log.write(line)
                log.flush()
                if self._echo is not None:
                    self._echo(self.spec.name, line.rstrip())

    def how_it_ended(self) -> str | None:
        """None while it runs, else how it ended."""
        code = self.process.poll()
        if code is None:
            return None
        self._reader.join(timeout=2.0)
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def join(self, timeout: float) -> bool:
        """Wait for its end; whether it came."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(timeout=2.0)
        return True


def command(spec: NodeSpec, parameters: Path) -> list[str]:
    """The command line of a node's process."""
    rules = {"__ns": spec.namespace, "__node": spec.name, **spec.remappings}
    arguments = [part for old, new in rules.items() for part in ("-r", f"{old}:={new}")]
    files = [part for file in (spec.params_file, str(parameters)) if file for part in ("--params-file", file)]
    return [sys.executable, "-m", f"{PACKAGE}.nodes.{spec.executable}", "--ros-args", *arguments, *files]


class Supervisor:
    """The graph as child processes; a context manager that never leaves a process behind.

    :param specs: nodes in the order of activation.
    :param folder: for logs and parameter files.
    :param node: a node of this process, spun by ``executor`` from this thread only, for the lifecycle services.
    :param echo: gets (node, line) for every line that a node prints, from other threads.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        folder: Path,
        node: Node,
        executor: Executor,
        echo: Callable[[str, str], None] | None = None,
    ) -> None:
        self._specs = list(specs)
        self._folder = folder
        self._node = node
        self._executor = executor
        self._echo = echo
        self.children: dict[str, Child] = {}
        self._ending: set[str] = set()
        self._clients: dict[str, LifecycleClient] = {}

    def __enter__(self) -> Supervisor:  # noqa: PYI034 (typing.Self needs 3.11)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            for spec in self._specs:
                self.children[spec.name] = Child(spec, self._folder, self._echo)
                self._clients[spec.name] = LifecycleClient(self._node, spec.full_name)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def check(self) -> None:
        """Raise NodeError if a node that should run does not."""
        for name, child in self.children.items():
            ended = child.how_it_ended()
            if ended is not None and name not in self._ending:
                raise NodeError(name, ended, child.tail)

    def spin(self, seconds: float) -> None:
        """Serve this process's callbacks for a moment and look after the nodes."""
        self._executor.spin_once(timeout_sec=seconds)
        self.check()

    def bring_up(
        self,
        timeout: float = 300.0,
        on_progress: Callable[[str, str], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Configure all nodes at once, then activate them one after the other; False when told to stop before.

        :param on_progress: gets (node, transition done).
        :raises NodeError: when one dies, fails a transition or does not answer.
        """
        report = on_progress or (lambda _name, _transition: None)
        deadline = time.monotonic() + timeout
        everyone = [spec.name for spec in self._specs]
        steps = [("configure", everyone), *(("activate", [name]) for name in everyone)]
        return all(self.transition(names, which, deadline, report, stop) for which, names in steps)

    def bring_down(self, timeout: float = 60.0) -> None:
        """Deactivate the nodes one after the other, producers first, so that consumers get all that was sent.

        :raises NodeError: when one dies, fails to or does not answer.
        """
        deadline = time.monotonic() + timeout
        for spec in reversed(self._specs):
            self.transition([spec.name], "deactivate", deadline)

    def transition(
        self,
        names: Sequence[str],
        which: str,
        deadline: float,
        report: Callable[[str, str], None] = lambda _name, _transition: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Ask nodes for a transition, all at the same time, and wait for all; False when told to stop.

        :raises NodeError: when one dies, refuses, or has not done it by ``deadline`` (monotonic clock [s]).
        """
        waiting = list(names)
        for name in waiting:
            self._clients[name].begin(which)
        while waiting:
            if stop():
                return False
            self.spin(0.02)
            for name in list(waiting):
                happened = self._clients[name].poll()
                if happened is False:
                    raise self._refused(name, which)
                if happened:
                    waiting.remove(name)
                    report(name, which)
            if waiting and time.monotonic() > deadline:
                name = waiting[0]
                raise NodeError(name, f"did not {which} in time", self.children[name].tail)
        return True

    def _refused(self, name: str, which: str) -> NodeError:
        # Its reason is a line of its log that may still be on its way through the pipe.
        child = self.children[name]
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and not any("cannot" in line for line in child.tail):
            time.sleep(0.01)
        return NodeError(name, f"could not {which}", child.tail, refused=True)

    def end(self, timeout: float = 30.0) -> None:
        """End all nodes, producers first: SIGINT, then SIGTERM, then SIGKILL for those that do not listen."""
        self._ending.update(self.children)
        for spec in reversed(self._specs):
            child = self.children.get(spec.name)
            if child is not None and child.process.poll() is None:
                child.process.send_signal(signal.SIGINT)
        for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0), (None, 5.0)):
            deadline = time.monotonic() + patience
            left = [c for c in self.children.values() if not c.join(max(0.0, deadline - time.monotonic()))]
            for child in left:
                if number is not None:
                    child.process.send_signal(number)

    def check_end(self) -> None:
        """Raise NodeError if a node ended otherwise than with exit code 0, once they were told to."""
        for name, child in self.children.items():
            ended = child.how_it_ended()
            if child.process.returncode != 0:
                raise NodeError(name, ended or "did not end", child.tail)
