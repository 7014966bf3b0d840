"""Starts the graph's nodes as child processes, runs their lifecycle transitions, watches them, ends them in order.

For machines without `launch`, and for programs that run the graph and need its outcome.
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

from timar_ros.graph.description import PACKAGE, NodeSpec
from timar_ros.graph.lifecycle import LifecycleClient
from timar_ros.graph.restarts import MOST, WINDOW, Restarts, restartable
from timar_ros.ros.node_process import SUPERVISED

REVIVAL = 300.0
"""Seconds in which a restarted node must be active again, as for all nodes at the start."""

TAIL = 20
"""Number of a failed node's last log lines that are shown."""


class NodeError(Exception):
    """A node died or failed a transition; the message names the node, and ``tail`` holds its last log lines.

    ``refused``: the node runs and has logged why it refused the transition.
    """

    def __init__(self, name: str, reason: str, tail: Sequence[str], *, refused: bool = False) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.tail = list(tail)
        self.refused = refused


class Child:
    """One node's process. It writes each output line to a log file and to ``echo``, and keeps the last lines.

    ``before``: the process that it takes the place of; what that said is kept, since it tells why that died.
    """

    def __init__(
        self, spec: NodeSpec, folder: Path, echo: Callable[[str, str], None] | None = None, before: Child | None = None
    ) -> None:
        self.spec = spec
        self._mode = "w" if before is None else "a"
        self.tail: deque[str] = deque(() if before is None else before.tail, maxlen=TAIL)
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
            # A terminal's Ctrl-C must reach only the supervisor, which then ends the nodes in order.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"log of {spec.name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self._log.open(self._mode, encoding="utf-8") as log:
            for line in self.process.stdout:
                self.tail.append(line.rstrip())
                log.write(line)
                log.flush()
                if self._echo is not None:
                    self._echo(self.spec.name, line.rstrip())

    def how_it_ended(self) -> str | None:
        """How the process ended, in words; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        self._reader.join(timeout=2.0)
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def join(self, timeout: float) -> bool:
        """Wait for the process to end; returns whether it has ended."""
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
    enclave = ["--enclave", spec.enclave] if spec.enclave else []
    return [sys.executable, "-m", f"{PACKAGE}.nodes.{spec.executable}", "--ros-args", *arguments, *files, *enclave]


class Supervisor:
    """The graph as child processes; a context manager that never leaves a process behind.

    :param specs: nodes in the order of activation.
    :param folder: folder of logs and parameter files.
    :param node: a node of this process for the lifecycle services; only this thread spins it, with ``executor``.
    :param echo: called with (node, line) for every line that a node prints, from other threads.
    :param restarts: counts the restarts of nodes that died when all were up; None: no restarts.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        folder: Path,
        node: Node,
        executor: Executor,
        echo: Callable[[str, str], None] | None = None,
        restarts: Restarts | None = None,
    ) -> None:
        self._specs = list(specs)
        self._folder = folder
        self._node = node
        self._executor = executor
        self._echo = echo
        self.children: dict[str, Child] = {}
        self._ending: set[str] = set()
        self._clients: dict[str, LifecycleClient] = {}
        self._restarts = restarts
        self._is_up = False
        self._reviving: dict[str, tuple[str, float]] = {}
        """Restarted nodes that are not active yet: the transition that is waited for, and until when."""
        self.on_restart: Callable[[str, str], None] = lambda _name, _what: None
        """Gets (node, what happened) when a node is restarted and when it is active again."""

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
        """Restart a node that should run and does not, where that is wanted and possible.

        :raises NodeError: where it is not, or was done too often.
        """
        for name, child in list(self.children.items()):
            ended = child.how_it_ended()
            if ended is not None and name not in self._ending:
                self._restart(child, ended)

    def _restart(self, child: Child, ended: str) -> None:
        name = child.spec.name
        if self._restarts is None or not self._is_up or not restartable(child.spec):
            raise NodeError(name, ended, child.tail)
        number = self._restarts.another(name)
        if number is None:
            raise NodeError(name, f"{ended} and was restarted {MOST} times within {WINDOW:.0f} s", child.tail)
        self.on_restart(name, f"{ended}: restart {number} of at most {MOST} in {WINDOW:.0f} s")
        self.children[name] = Child(child.spec, self._folder, self._echo, child)
        self._clients[name].begin("configure")
        self._reviving[name] = ("configure", time.monotonic() + REVIVAL)

    def _revive(self) -> None:
        """Take restarted nodes on through their lifecycle."""
        for name, (which, deadline) in list(self._reviving.items()):
            happened = self._clients[name].poll()
            if happened is False:
                raise self._refused(name, which)
            if happened and which == "configure":
                self._clients[name].begin("activate")
                self._reviving[name] = ("activate", deadline)
            elif happened:
                del self._reviving[name]
                self.on_restart(name, "is active again")
            elif time.monotonic() > deadline:
                raise NodeError(name, f"did not {which} in time after its restart", self.children[name].tail)

    def spin(self, seconds: float) -> None:
        """Run this process's callbacks for a moment and check the nodes."""
        self._executor.spin_once(timeout_sec=seconds)
        self.check()
        self._revive()

    def bring_up(
        self,
        timeout: float = 300.0,
        on_progress: Callable[[str, str], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Configure all nodes at once, then activate them one after the other; False when ``stop()`` ended it earlier.

        :param on_progress: called with (node, finished transition).
        :raises NodeError: when a node dies, fails a transition or does not answer.
        """
        report = on_progress or (lambda _name, _transition: None)
        deadline = time.monotonic() + timeout
        everyone = [spec.name for spec in self._specs]
        steps = [("configure", everyone), *(("activate", [name]) for name in everyone)]
        self._is_up = all(self.transition(names, which, deadline, report, stop) for which, names in steps)
        return self._is_up

    def bring_down(self, timeout: float = 60.0) -> None:
        """Deactivate the nodes one after the other, producers first, so that consumers get all messages.

        :raises NodeError: when a node dies, fails to deactivate or does not answer.
        """
        deadline = time.monotonic() + timeout
        self._is_up = False
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
        """Request a transition of all named nodes at once, and wait for all; False when ``stop()`` ended it earlier.

        :raises NodeError: when a node dies, refuses, or is not ready by ``deadline`` (monotonic clock [s]).
        """
        waiting = list(names)
        for name in waiting:
            self._clients[name].begin(which)
        while waiting:
            if stop():
                return False
            self.spin(0.02)
            for name in list(waiting):
                succeeded = self._clients[name].poll()
                if succeeded is False:
                    raise self._refused(name, which)
                if succeeded:
                    waiting.remove(name)
                    report(name, which)
            if waiting and time.monotonic() > deadline:
                name = waiting[0]
                raise NodeError(name, f"did not {which} in time", self.children[name].tail)
        return True

    def _refused(self, name: str, which: str) -> NodeError:
        # The reason is a log line that may still be in the pipe.
        child = self.children[name]
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and not any("cannot" in line for line in child.tail):
            time.sleep(0.01)
        return NodeError(name, f"could not {which}", child.tail, refused=True)

    def end(self, timeout: float = 30.0) -> None:
        """End all nodes, producers first: SIGINT, then SIGTERM, then SIGKILL for nodes that still run."""
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
        """After :meth:`end`, raise NodeError if a node did not end with exit code 0."""
        for name, child in self.children.items():
            ended = child.how_it_ended()
            if child.process.returncode != 0:
                raise NodeError(name, ended or "did not end", child.tail)
