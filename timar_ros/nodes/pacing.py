"""Threads beside the executor: a steady beat for a node's output, and the playing of a conversation.

A beat of one's own is cheaper than a timer: an executor takes ten times as long to wake as to work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GRACE = 2.0
"""How long a trajectory is waited for after its motion has come [s]: not every motion gets one."""


class Pacer:
    """Calls a function at a fixed rate from a thread of its own, until it is stopped.

    Beats that were missed are not made up for. An error ends the beat and is kept in ``fault``.

    :param period: seconds between two calls.
    """

    def __init__(self, period: float, beat: Callable[[], None], name: str) -> None:
        self.fault: Exception | None = None
        self._period, self._beat = period, beat
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            try:
                self._beat()
            except Exception as error:
                self.fault = error
                raise
            due = max(due + self._period, time.monotonic())
            time.sleep(max(due - time.monotonic(), 0.0))

    def stop(self) -> None:
        """End after the beat at hand."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()


class Playing:
    """A thread that plays something until it is over or stopped, and may wait until turns are answered.

    :param play: what it does; it is given this object.
    """

    def __init__(self, play: Callable[[Playing], None], name: str) -> None:
        self.answered = 0
        """How many turns are answered: one more than the highest number that was."""
        self.stopped = False
        self._followed = False  # whether there ever was a trajectory
        self._owed, self._owed_since = 0, 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=play, args=(self,), name=name, daemon=True)
        self._thread.start()

    def note_answer(self, number: int, to_be_followed: bool = False) -> None:
        """Turn ``number`` is answered; from any thread.

        :param to_be_followed: count it only with the next :meth:`note_trajectory`, or after :data:`GRACE`. Before the
            first trajectory it counts at once: the robot may not have begun to move.
        """
        with self._changed:
            if to_be_followed and self._followed:
                self._owed, self._owed_since = max(self._owed, number + 1), time.monotonic()
            else:
                self.answered = max(self.answered, number + 1)
            self._changed.notify_all()

    def note_trajectory(self) -> None:
        """The robot was told to move; from any thread."""
        with self._changed:
            self._followed = True
            self.answered = max(self.answered, self._owed)
            self._changed.notify_all()

    def wait_for(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Until ``holds`` (looked at with each answer) or it is stopped; False when neither came in time."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (self.stopped or holds()):
                now = time.monotonic()
                if now >= deadline:
                    return False
                if self._owed > self.answered and now - self._owed_since >= GRACE:
                    self.answered = self._owed
                else:
                    self._changed.wait(min(deadline - now, GRACE / 10))
            return True

    def sleep(self, seconds: float) -> bool:
        """Wait; whether it was stopped."""
        with self._changed:
            return self._changed.wait_for(lambda: self.stopped, max(seconds, 0.0))

    def stop(self) -> None:
        """End at once; not from the thread itself."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()
        self._thread.join()
