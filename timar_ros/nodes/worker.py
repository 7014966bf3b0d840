"""One thread that works on turns beside the executor: bounded, oldest dropped first, idle work when nothing waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from timar_ros.streaming.turn_types import TurnInput

MAX_REMEMBERED = 64
"""Dropped turns that are still handed on, so that the statistics of the conversation take them in; no more of them."""


@dataclass
class Job:
    """A turn of one conversation, waiting since ``received`` (monotonic clock [s]); ``dropped``: not to be answered."""

    key: str
    turn: TurnInput
    received: float = field(default_factory=time.monotonic)
    dropped: bool = False


class Worker:
    """Runs ``handle(job)`` for one job after another and ``idle(key)`` after it, once nothing else waits.

    :param handle: gets every job in order, dropped ones too, marked as such. It must not raise.
    :param idle: work for later turns of this conversation. It must not raise.
    :param depth: jobs of one conversation that may wait; one more drops the oldest.
    """

    def __init__(self, handle: Callable[[Job], None], idle: Callable[[str], None], depth: int) -> None:
        self._handle = handle
        self._idle = idle
        self._depth = depth
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> int:
        """Queue a job, from any thread; returns how many had to be dropped for it."""
        with self._changed:
            self._jobs.append(job)
            waiting = [j for j in self._jobs if j.key == job.key and not j.dropped]
            surplus = waiting[: max(0, len(waiting) - self._depth)]
            for old in surplus:
                old.dropped = True
            remembered = [j for j in self._jobs if j.dropped]
            for old in remembered[: max(0, len(remembered) - MAX_REMEMBERED)]:
                self._jobs.remove(old)
            self._changed.notify_all()
            return len(surplus)

    def waiting(self) -> int:
        """Jobs that wait to be answered."""
        with self._changed:
            return sum(not job.dropped for job in self._jobs)

    def settle(self, timeout: float) -> bool:
        """Wait until nothing waits and nothing runs."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._busy, timeout)

    def end(self) -> None:
        """Finish the job at hand, forget the others, end the thread."""
        with self._changed:
            self._ending = True
            self._jobs.clear()
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        unprepared: dict[str, None] = {}
        while True:
            with self._changed:
                if not self._jobs and not unprepared:
                    self._busy = False
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._jobs or self._ending)
                if self._ending:
                    return
                self._busy = True
                job = self._jobs.popleft() if self._jobs else None
            if job is not None:
                self._handle(job)
                unprepared[job.key] = None
            else:
                key = next(iter(unprepared))
                del unprepared[key]
                self._idle(key)
