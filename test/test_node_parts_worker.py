"""The worker beside the executor: in order, bounded, oldest dropped, several conversations in one pass."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support.ros_bench import PATIENCE

from timar_ros.node_parts.worker import MAX_REMEMBERED, Job, Worker
from timar_ros.streaming.turns.turn_types import TurnInput


def a_turn(number):
    return TurnInput(number, 0, 1.0, np.zeros(4, np.float32), np.zeros(4, np.float32), None)


class Bound:
    """A worker whose first job waits until it is let go."""

    def __init__(self, depth):
        self.passes: list[list[tuple[str, int, bool]]] = []
        self.idle_after: list[int] = []
        self.began, self.go = threading.Event(), threading.Event()
        self.idled = threading.Event()
        self.faults: list[Exception] = []
        self.worker = Worker(self.handle, self.idle, depth, self.faults.append)

    def idle(self):
        self.idle_after.append(len(self.passes))
        self.idled.set()

    def handle(self, jobs):
        self.passes.append([(job.key, job.turn.number, job.dropped) for job in jobs])
        self.began.set()
        assert self.go.wait(PATIENCE)

    def submit(self, number, key="", answer=True):
        return self.worker.submit(Job(key, a_turn(number), answer))


@pytest.fixture
def bound():
    made = Bound(depth=2)
    made.submit(0)
    assert made.began.wait(PATIENCE)
    yield made
    made.go.set()
    made.worker.end()


def test_jobs_are_done_in_order_and_idle_work_when_none_waits(bound):
    assert bound.submit(1) == bound.submit(2) == 0
    assert bound.worker.waiting() == 2
    bound.go.set()
    assert bound.idled.wait(PATIENCE)
    assert bound.passes == [[("", 0, False)], [("", 1, False)], [("", 2, False)]]
    assert bound.idle_after == [3]


def test_the_oldest_that_waits_is_dropped_but_still_told(bound):
    assert [bound.submit(number) for number in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert bound.worker.waiting() == 2
    bound.go.set()
    assert bound.idled.wait(PATIENCE)
    assert [p[0][1:] for p in bound.passes] == [(0, False), (1, True), (2, True), (3, False), (4, False)]


def test_conversations_do_not_drop_each_others_turns_and_share_a_pass(bound):
    for number in (1, 2):
        for key in ("", "b", "c"):
            assert bound.submit(number, key) == 0
    bound.go.set()
    assert bound.idled.wait(PATIENCE)
    assert [sorted(key for key, _, _ in p) for p in bound.passes] == [[""], ["", "b", "c"], ["", "b", "c"]]


def test_turns_that_want_no_answer_are_not_dropped(bound):
    for number in range(1, 5):
        bound.submit(number, answer=number % 2 == 0)
    assert bound.submit(6) == 1
    bound.go.set()
    assert bound.idled.wait(PATIENCE)
    assert [p[0][1:] for p in bound.passes[1:]] == [(1, False), (2, True), (3, False), (4, False), (6, False)]


def test_memory_is_bounded_however_long_it_hangs(bound):
    for number in range(1, 500):
        bound.submit(number)
    bound.go.set()
    assert bound.idled.wait(PATIENCE)
    assert len(bound.passes) <= 1 + MAX_REMEMBERED + 2


def test_it_ends_while_jobs_wait(bound):
    bound.submit(1)
    bound.go.set()
    bound.worker.end()
    assert not bound.worker._thread.is_alive()
