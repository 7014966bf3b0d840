"""Threads in addition to the executor: a fixed-rate loop for a node's output, and the playing of a conversation.

A separate thread is cheaper than a timer: an executor needs ten times as long to wake up as to work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GRACE = 2.0
"""How long to wait for a trajectory after its motion has come [s]: not every motion gets a trajectory."""


class Pacer:
    """Calls a function at a fixed rate from its own thread, until it is stopped.

    The pacer skips missed calls.

    :param period: seconds between two calls.
    :param beat: the function; it must not raise.
    """

    def __init__(self, period: float, beat: Callable[[], None], name: str) -> None:
        self._period, self._beat = period, beat
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            self._beat()
            due = max(due + self._period, time.monotonic())
            time.sleep(max(due - time.monotonic(), 0.0))

    def stop(self) -> None:
        """End after the current call."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()


class Playing:
    """A thread that plays a conversation until its end or a stop, and may wait until turns are answered.

    :param play: the thread's function; its argument is this object.
    """

    def __init__(self, play: Callable[[Playing], None], name: str) -> None:
        self.answered = 0
        """Number of answered turns: one more than the highest answered number."""
        self.stopped = False
        self._followed = False  # whether a trajectory has come
        self._due, self._due_since = 0, 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=play, args=(self,), name=name, daemon=True)
        self._thread.start()

    def note_answer(self, number: int, to_be_followed: bool = False) -> None:
        """Note that turn ``number`` is answered; from any thread.

        :param to_be_followed: count the answer only with the next :meth:`note_trajectory`, or after :data:`GRACE`.
            Before the first trajectory the answer counts at once: the robot may not have begun to move.
        """
        with self._changed:
            if to_be_followed and self._followed:
                self._due, self._due_since = max(self._due, number + 1), time.monotonic()
            else:
                self.answered = max(self.answered, number + 1)
            self._changed.notify_all()

    def note_trajectory(self) -> None:
        """Note that a trajectory was published; from any thread."""
        with self._changed:
            self._followed = True
            self.answered = max(self.answered, self._due)
            self._changed.notify_all()

    def wait_for(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``holds()`` (checked with each answer) or a stop; False when neither came in time."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (self.stopped or holds()):
                now = time.monotonic()
                if now >= deadline:
                    return False
                if self._due > self.answered and now - self._due_since >= GRACE:
                    self.answered = self._due
                else:
                    self._changed.wait(min(deadline - now, GRACE / 10))
            return True

    def sleep(self, seconds: float) -> bool:
        """Wait; returns whether the playing was stopped."""
        with self._changed:
            return self._changed.wait_for(lambda: self.stopped, max(seconds, 0.0))

    def stop(self) -> None:
        """End at once; do not call it from the thread itself."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()
        self._thread.join()
