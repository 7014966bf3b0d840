"""What nodes say on `/diagnostics`, kept and told once, with what to do about it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from timar_ros.graph.advice import advice, complaint
from timar_ros.graph.health import SETTLED, SILENT, Health, News

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class World:
    """A clock, a namespace's reports, and what was told."""

    def __init__(self, namespace="/"):
        self.now = 100.0
        self.health = Health(namespace, self.clock)
        self.said = []
        self.news = News(self.health, self.said.append, self.clock)

    def clock(self):
        return self.now

    def report(self, name, level=OK, message="listening", after=1.0, **rows):
        self.now += after
        values = [KeyValue(key=key, value=value) for key, value in rows.items()]
        status = DiagnosticStatus(level=level, name=f"{name}: node", message=message, values=values)
        self.health.take(DiagnosticArray(status=[status]))
        self.news.look()


@pytest.fixture
def world():
    return World()


def test_a_level_is_told_once_and_its_end_once(world):
    world.report("retarget")
    for _ in range(4):
        world.report("retarget", WARN, "motion comes too late: raise playback_delay by at least 0.2 s")
    assert world.said == ["WARN retarget: motion comes too late: raise playback_delay by at least 0.2 s"]
    for _ in range(round(SETTLED) + 2):
        world.report("retarget")
    assert world.said[1:] == ["retarget: all is well again"]


def test_what_flickers_is_told_once(world):
    for _ in range(20):
        world.report("turn_segmenter", WARN, "rising: lost_user")
        world.report("turn_segmenter")
    assert len(world.said) == 1


def test_what_becomes_worse_is_told(world):
    world.report("timar_inference", WARN, "too slow: 3 turns dropped")
    world.report("timar_inference", ERROR, "2 turns failed: see the log")
    world.report("timar_inference", WARN, "too slow: 3 turns dropped")
    assert [line.split()[0] for line in world.said] == ["WARN", "ERROR"]


def test_a_node_that_says_nothing_any_more_is_told(world):
    world.report("retarget")
    world.now += SILENT + 0.1
    world.news.look()
    world.news.look()
    (line,) = world.said
    assert line.startswith("STALE retarget: no report")


def test_only_the_nodes_of_the_namespace_count():
    world = World("/robot1")
    for name in ("retarget", "robot2/retarget", "robot1/inner/retarget", "robot1/speech"):
        world.report(name, WARN, "x")
    assert set(world.health.reports) == {"speech"}


def test_the_worst_of_several_reports_is_kept(world):
    world.report("retarget", WARN, "frames are not finite or out of range")
    world.report("retarget", state="active")
    report = world.health.reports["retarget"]
    assert (report.level, report.worst, report.worst_message) == (0, 1, "frames are not finite or out of range")
    assert (report.count, report.rows) == (2, {"state": "active"})


def complaints(repository: Path):
    """What the nodes' `diagnose` can complain of: the literal texts beside WARN and ERROR, 7 for what is filled in."""
    for path in sorted((repository / "timar_ros" / "nodes").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Tuple) and len(node.elts) == 3):
                continue
            level, text, _ = node.elts
            if not (isinstance(level, ast.Name) and level.id in ("WARN", "ERROR")):
                continue
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            if isinstance(text, (ast.JoinedStr, ast.Constant)):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in parts)


def test_every_complaint_has_its_advice(repository):
    found = list(complaints(repository))
    assert len(found) > 15
    unknown = advice("a message that no rule knows")
    assert [text for text in found if advice(text) == unknown and "log" not in text] == []


def test_advice_is_about_the_thing():
    assert "timar_inference" in advice("waiting for agent/motion")
    assert "driver" in advice("waiting for joint_states of jaw")
    assert advice("3 turns came later than playback_delay allows: raise it") == ""
    assert complaint("retarget", "a\nb raise it") == "retarget: a b raise it"
