"""Simulated time for nodes under test: no result then depends on how fast the machine is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rosgraph_msgs.msg import Clock

from support.ros_bench import Bench
from timar_ros.ros.messages import to_stamp

START = 1_000_000_000_000
TURNS = 15


class SimTime:
    """Publishes ``/clock`` in steps; after each, waits until the node has worked up to it.

    :param reached: the time up to which the node has worked [ns].
    """

    def __init__(self, bench: Bench, reached: Callable[[], int], step: float = 0.02) -> None:
        self.bench, self._reached, self._step = bench, reached, round(step * 1e9)
        self._publisher = bench.probe.create_publisher(Clock, "/clock", 10)
        bench.connected(self._publisher)
        self.now = START

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + round(seconds * 1e9)
        while self.now < end:
            self.now = min(self.now + self._step, end)
            self._publisher.publish(Clock(clock=to_stamp(self.now)))
            self.bench.until(lambda: self._reached() >= self.now)
            # More turns than messages come of one step, so that the test's ears do not fall behind.
            for _ in range(TURNS):
                self.bench.executor.spin_once(timeout_sec=0.0)

    def until(self, holds: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Let time pass until something holds; fails when it does not within so many simulated seconds."""
        end = self.now + round(seconds * 1e9)
        while not (value := holds()):
            assert self.now < end, f"did not happen within {seconds} s"
            self.run(self._step * 1e-9)
        return value
