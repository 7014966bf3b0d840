"""What a source waits for at speed 0: answers, and the trajectories that follow them."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("rclpy")

from timar_ros.graph.description import GraphOptions, describe
from timar_ros.node_parts import pacing
from timar_ros.node_parts.pacing import Playing


@pytest.fixture
def playing():
    playing = Playing(lambda _: None, "test")
    yield playing
    playing.stop()


def test_a_turn_is_answered_by_its_motion(playing):
    playing.note_answer(4)
    assert playing.answered == 5
    playing.note_answer(2)
    assert playing.answered == 5


def test_once_the_robot_moves_a_turn_is_answered_by_its_trajectory(playing):
    playing.note_answer(0, to_be_followed=True)
    assert playing.answered == 1, "nobody knows yet whether trajectories will come"
    playing.note_trajectory()
    playing.note_answer(1, to_be_followed=True)
    assert playing.answered == 1
    playing.note_trajectory()
    assert playing.answered == 2


def test_a_motion_without_a_trajectory_does_not_stop_the_play(playing, monkeypatch):
    monkeypatch.setattr(pacing, "GRACE", 0.05)
    playing.note_trajectory()
    playing.note_answer(0, to_be_followed=True)
    assert playing.answered == 0
    assert playing.wait_for(lambda: playing.answered == 1, timeout=30.0)


def test_waiting_ends_with_an_answer_a_stop_or_the_time(playing):
    assert not playing.wait_for(lambda: playing.answered >= 1, timeout=0.01)
    threading.Timer(0.01, playing.note_answer, (0,)).start()
    assert playing.wait_for(lambda: playing.answered >= 1, timeout=30.0)
    threading.Timer(0.01, playing.stop).start()
    assert playing.wait_for(lambda: playing.answered >= 2, timeout=30.0)
    assert playing.stopped


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, "trajectory"), ({"sim": "none"}, None), ({"speed": 2.0}, None), ({"command_topic": "elsewhere"}, None)],
)
def test_only_in_lock_step_with_the_simulator_trajectories_count(changes, expected, repository):
    recording = str(repository / "samples/conversation.flac")
    options = {"source": "recording", "recording": recording, "speed": 0.0, "sim": "builtin", **changes}
    source = describe(GraphOptions(**options))[-1]
    assert source.parameters.get("answered_by") == expected
    assert ("joint_trajectory" in source.inputs) == (expected is not None)
