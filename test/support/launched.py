"""A launch file that runs under the real `launch` in a process of its own, and what it prints."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

import psutil  # type: ignore[import-untyped]

PATIENCE = 120.0
"""Seconds after which a line that should come is held to be missing."""

FAULTS = ("Traceback", "[ERROR]", "process has died", "escalating", "nanobind", "KeyboardInterrupt")
"""What no line of a launch that starts and ends well contains."""


class Launched:
    """A running launch; it is the leader of a process group, as a shell's foreground job is."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def until(self, *texts: str, patience: float = PATIENCE) -> None:
        """Read on until every text has been seen.

        :raises AssertionError: when the launch ends, or ``patience`` [s] is over, before.
        """
        deadline = time.monotonic() + patience
        while not all(any(text in line for line in self.lines) for text in texts):
            line: str | None = None
            with contextlib.suppress(queue.Empty):
                line = self._queue.get(timeout=max(0.1, deadline - time.monotonic()))
            assert line is not None, f"{texts} never came:\n{''.join(self.lines)}"
            self.lines.append(line)

    def children(self) -> list[psutil.Process]:
        """The nodes' processes."""
        return psutil.Process(self.process.pid).children(recursive=True)  # type: ignore[no-any-return]

    def finish(self, interrupt: bool = True) -> int:
        """Press Ctrl-C (``interrupt``) and wait; the exit code. No process may be left over."""
        left = self.children()
        if interrupt:
            os.killpg(self.process.pid, signal.SIGINT)  # a terminal's Ctrl-C goes to all processes of its group
        code = self.process.wait(timeout=PATIENCE)
        while (line := self._queue.get(timeout=PATIENCE)) is not None:
            self.lines.append(line)
        _, alive = psutil.wait_procs(left, timeout=PATIENCE)
        assert not alive, f"these processes outlive the launch: {alive}"
        return code

    def faults(self) -> list[str]:
        """Lines that a launch which starts and ends well does not have."""
        return [line.rstrip() for line in self.lines if any(text in line for text in FAULTS)]

    def kill(self) -> None:
        """End it at once, with its nodes."""
        if self.process.poll() is None:
            for child in self.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
