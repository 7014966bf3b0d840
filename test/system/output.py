"""What `timar up` prints, read while it runs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable


class Output:
    """A process's ``lines``, collected by a thread for as long as it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, list[str]()
        self._up = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if "nodes are up" in line:
                self._up.set()

    def wait(self, meanwhile: Callable[[], None] = lambda: time.sleep(0.1)) -> None:
        """Return when its nodes are up; until then do something, over and over.

        :raises SystemExit: the process ended before.
        """
        while not self._up.is_set():
            meanwhile()
            if self.process.poll() is not None:
                raise SystemExit(f"timar up ended early:\n{''.join(self.lines[-30:])}")
