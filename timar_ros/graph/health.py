"""The newest reports of one graph's nodes on `/diagnostics`, and the changes in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from timar_ros.graph.advice import complaint
from timar_ros.ros import qos

LEVELS = ("OK", "WARN", "ERROR", "STALE")
OK, WARN, ERROR, STALE = range(4)

SILENT = 5.0
"""A node reports once a second; a node without a report for this time [s] is stale."""

SETTLED = 5.0
"""A complaint is over when the node has been OK for so long [s]: many are counted from report to report and flicker."""


@dataclass
class Report:
    """The newest report of a node."""

    level: int
    """0 OK, 1 WARN, 2 ERROR, 3 STALE."""
    message: str
    rows: dict[str, str] = field(default_factory=dict)
    at: float = 0.0
    """Time of arrival (monotonic clock [s])."""
    count: int = 1
    """Number of reports so far."""
    worst: int = 0
    """The highest level of all reports."""
    worst_message: str = ""


class Health:
    """Keeps the reports of the nodes in one namespace.

    :param namespace: absolute; reports of nodes in other namespaces, also in those below it, are ignored.
    :param clock: a steady clock's time [s].
    """

    def __init__(self, namespace: str = "/", clock: Callable[[], float] = time.monotonic) -> None:
        self._prefix = namespace.strip("/")
        self._clock = clock
        self.reports: dict[str, Report] = {}
        """By node name, without the namespace."""

    def listen(self, node: Node) -> None:
        """Subscribe to `/diagnostics`."""
        node.create_subscription(DiagnosticArray, "/diagnostics", self.take, qos.diagnostics())

    def take(self, array: Any) -> None:
        """Store the reports of a DiagnosticArray message."""
        for status in array.status:
            full, mark, task = status.name.partition(": ")
            namespace, _, name = full.strip("/").rpartition("/")
            if mark and task == "node" and namespace == self._prefix:
                self._keep(name, status)

    def _keep(self, name: str, status: DiagnosticStatus) -> None:
        level = min(int.from_bytes(status.level, "little"), STALE)
        rows = {pair.key: pair.value for pair in status.values}
        before = self.reports.get(name)
        report = Report(level, status.message, rows, self._clock(), 1, level, status.message)
        if before is not None:
            report.count = before.count + 1
            if before.worst > level:
                report.worst, report.worst_message = before.worst, before.worst_message
        self.reports[name] = report

    def silent(self, name: str) -> bool:
        """Whether a node has stopped reporting."""
        report = self.reports.get(name)
        return report is not None and self._clock() - report.at > SILENT


class News:
    """Reports new complaints of the diagnostics and their end: one line when a node's level changes.

    :param health: the nodes' newest reports.
    :param say: called with each line.
    :param clock: a steady clock's time [s].
    """

    def __init__(self, health: Health, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._health, self._say, self._clock = health, say, clock
        self._reported_levels: dict[str, int] = {}
        self._fine_since: dict[str, float] = {}

    def look(self) -> None:
        """Compare with the reported levels; call this method a few times a second."""
        now = self._clock()
        for name, report in self._health.reports.items():
            level, message = report.level, report.message
            if self._health.silent(name):
                level, message = STALE, f"no report for {SILENT:g} s"
            reported = self._reported_levels.get(name, OK)
            if level == OK and reported != OK:
                if now - self._fine_since.setdefault(name, report.at) >= SETTLED:
                    self._reported_levels[name] = OK
                    self._say(f"{name}: all is well again")
                continue
            self._fine_since.pop(name, None)
            # A complaint at a lower level is not reported again: it is still the same fault.
            if level > reported:
                self._reported_levels[name] = level
                self._say(f"{LEVELS[level]} {complaint(name, message)}")

    def forget(self, name: str) -> None:
        """Drop the reports of a node that was restarted."""
        self._health.reports.pop(name, None)
        self._fine_since.pop(name, None)
        self._reported_levels.pop(name, None)
