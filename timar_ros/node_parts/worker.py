"""One thread that processes turns, besides the executor: bounded, drops the oldest first, does idle work in between."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from timar_ros.streaming.turns.turn_types import TurnInput

MAX_REMEMBERED = 64
"""Most waiting turns that need no answer: they only complete the conversation's history."""


@dataclass
class Job:
    """A turn of one conversation, waiting since ``received`` (monotonic clock [s]).

    ``answer``: whether the turn needs motion; ``dropped``: whether the turn waited too long for an answer.
    """

    key: str
    turn: TurnInput
    answer: bool = True
    received: float = field(default_factory=time.monotonic)
    dropped: bool = False


class Worker:
    """Runs ``handle(jobs)`` for the oldest job of every conversation at once, and ``idle()`` when nothing waits.

    :param handle: gets every job in its conversation's order, also dropped jobs.
    :param idle: work for later turns.
    :param depth: most jobs of one conversation that wait for an answer; one more drops the oldest.
    :param report: called with an exception of ``handle``, ``idle`` or a call of :meth:`between_turns`; the thread
        continues.
    """

    def __init__(
        self,
        handle: Callable[[list[Job]], None],
        idle: Callable[[], None],
        depth: int,
        report: Callable[[Exception], None],
    ) -> None:
        self._handle = handle
        self._idle = idle
        self._report = report
        self._depth = depth
        self._jobs: deque[Job] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> int:
        """Queue a job, from any thread; returns the number of jobs dropped for it."""
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
        """Run ``call`` in the worker's thread before the next turn; from any thread.

        :param forget: a conversation whose waiting turns are dropped.
        """
        with self._changed:
            self._calls.append(call)
            for job in [job for job in self._jobs if job.key == forget]:
                self._jobs.remove(job)
            self._changed.notify_all()

    def waiting(self) -> int:
        """Number of jobs that wait for an answer."""
        with self._changed:
            return sum(job.answer and not job.dropped for job in self._jobs)

    def end(self) -> None:
        """Finish the current jobs, drop the others, end the thread."""
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
            try:
                if call is not None:
                    call()
                elif jobs:
                    self._handle(jobs)
                else:
                    self._idle()
            except Exception as error:
                self._report(error)
            if call is None:
                prepared = not jobs
