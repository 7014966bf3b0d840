"""A trajectory controller's own commands keep the limits, whatever it begins trajectories at and however joints lag."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from timar_ros.data.motion_files import read_motion
from timar_ros.node_parts import head_driver
from timar_ros.resources import share
from timar_ros.retarget import load_profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from measure_controllers import Setting, follow

# A fifth-order piece between two points is not of constant jerk as the motion is; it may be this much faster.
BETWEEN_POINTS = 0.02


@pytest.fixture(scope="module")
def frames():
    return np.asarray(read_motion(share("samples", "conversation_agent.npz")), dtype=np.float64)[:400]


@pytest.mark.parametrize("from_desired", [True, False])
@pytest.mark.parametrize("behind", [{}, {"lag": 0.05}, {"dead": 0.05}])
@pytest.mark.parametrize(("robot", "rate"), [("timar_head", 200.0), ("tiago", 100.0)])
def test_a_controllers_commands_keep_the_limits(frames, robot, rate, behind, from_desired):
    run = follow(load_profile(robot), frames[:200], Setting(from_desired, rate=rate, **behind))
    assert run.trajectories > 8
    assert np.ptp(run.commands, axis=0).max() > 0.1, "nothing moved"
    velocity, acceleration = run.shares()
    assert velocity < 1.0
    assert acceleration < 1.0 + BETWEEN_POINTS


def test_what_a_controller_begins_by_itself_breaks_them(frames, monkeypatch):
    """The model of the controller shows the fault that the overlap of trajectories prevents."""
    ahead = 20_000_000
    monkeypatch.setattr(
        head_driver.HeadDriver, "_begin", lambda _, motion, now: int(np.searchsorted(motion.time_ns, now + ahead))
    )
    profile = load_profile("timar_head")
    for setting, least in ((Setting(True), (0.0, 4.0)), (Setting(False, lag=0.05), (0.8, 20.0))):
        velocity, acceleration = follow(profile, frames, setting).shares()
        assert (velocity > least[0], acceleration > least[1]) == (True, True)


@pytest.mark.parametrize("from_desired", [True, False])
def test_the_start_is_from_where_the_robot_is(frames, from_desired):
    profile = load_profile("tiago")
    run = follow(profile, frames[:50], Setting(from_desired, lag=0.05), events=False, start=0.4)
    assert run.commands[0] == pytest.approx([0.4, 0.4], abs=1e-6)
    assert max(run.shares()) < 1.0 + BETWEEN_POINTS
