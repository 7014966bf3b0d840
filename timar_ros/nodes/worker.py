"""One thread that works on turns beside the executor: bounded, oldest dropped first, idle work when nothing waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from timar_ros.streaming.turn_types import TurnInput

MAX_REMEMBERED = 64
"""Turns without an answer that are kept at most: they only tell the conversation what was said."""


@dataclass
class Job:
    """A turn of one conversation, waiting since ``received`` (monotonic clock [s]).

    ``answer``: whether motion is wanted for it; ``dropped``: whether it waited too long to get any.
    """

    key: str
    turn: TurnInput
    answer: bool = True
    received: float = field(default_factory=time.monotonic)
    dropped: bool = False


class Worker:
    """Runs ``handle(jobs)`` for the oldest job of every conversation at once, and ``idle()`` when nothing waits.

    :param handle: gets every job in its conversation's order, dropped ones too, marked as such. It must not raise.
    :param idle: work for later turns. It must not raise.
    :param depth: jobs of one conversation that may wait for an answer; one more drops the oldest.
    """

    def __init__(self, handle: Callable[[list[Job]], None], idle: Callable[[], None], depth: int) -> None:
        self._handle = handle
        self._idle = idle
        self._depth = depth
        self._jobs: deque[Job] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> int:
        """Queue a job, from any thread; returns how many had to be dropped for it."""
        with self._changed:
            self._jobs.append(job)
            waiting = [j for j in self._jobs if j.key == job.key and j.answer and not j.dropped]
            surplus = waiting[: max(0, len(waiting) - self._depth)]
            for old in surplus:
                old.dropped = True
            unanswered = [j for j in self._jobs if j.dropped or not j.answer]
            for old in unanswered[: max(0, len(unanswered) - MAX_REMEMBERED)]:
                self._jobs.remove(old)
            self._changed.notify_all()
            return len(surplus)

    def between_turns(self, call: Callable[[], None], *, forget: str | None = None) -> None:
        """Run ``call`` in the thread before the next turn; it must not raise. From any thread.

        :param forget: a conversation whose waiting turns are forgotten.
        """
        with self._changed:
            self._calls.append(call)
            for job in [job for job in self._jobs if job.key == forget]:
                self._jobs.remove(job)
            self._changed.notify_all()

    def waiting(self) -> int:
        """Jobs that wait for an answer."""
        with self._changed:
            return sum(job.answer and not job.dropped for job in self._jobs)

    def end(self) -> None:
        """Finish the jobs at hand, forget the others, end the thread."""
        with self._changed:
            self._ending = True
            self._jobs.clear()
            self._changed.notify_all()
        self._thread.join()

    def _take(self) -> list[Job]:
        first: dict[str, Job] = {}
        for job in self._jobs:
            first.setdefault(job.key, job)
        for job in first.values():
            self._jobs.remove(job)
        return list(first.values())

    def _run(self) -> None:
        prepared = True
        while True:
            with self._changed:
                if not self._jobs and not self._calls and prepared:
                    self._changed.wait_for(lambda: self._jobs or self._calls or self._ending)
                if self._ending:
                    return
                call = self._calls.popleft() if self._calls else None
                jobs = [] if call is not None else self._take()
            if call is not None:
                call()
                continue
            if jobs:
                self._handle(jobs)
            else:
                self._idle()
            prepared = not jobs
