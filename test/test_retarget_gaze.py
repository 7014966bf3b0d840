"""The head turns to a point, smoothly and within its limits, and the motion of the frames rides on top."""

from __future__ import annotations

import math

import numpy as np
import pytest

from timar_ros.errors import UserError
from timar_ros.retarget import JointMotion, Retargeter, RetargetOptions, load_profile, retarget_motion
from timar_ros.retarget.gaze import REACTION, direction
from timar_ros.retarget.kinematics import forward_rotation
from timar_ros.retarget.robot_check import violations

HEAD = load_profile("timar_head")
SECOND = 1_000_000_000
YAW, PITCH = 0, 1
LEFT, RIGHT = (2.0, 1.2, 0.1), (1.5, -1.0, -0.2)


def still(seconds: float) -> np.ndarray:
    return np.zeros((round(25 * seconds), 56))


def nodding(seconds: float) -> np.ndarray:
    frames = still(seconds)
    frames[:, 53] = 0.1 * np.sin(2 * np.pi * 1.5 * np.arange(len(frames)) / 25)
    return frames


def within_limits(motion: JointMotion) -> None:
    assert max(violations(HEAD, motion).values()) <= 1e-6


@pytest.mark.parametrize("robot", ["timar_head", "reachy_mini", "nao", "pepper", "icub"])
@pytest.mark.parametrize("point", [(2.0, 0.5, 0.2), (1.0, -0.3, -0.2), (3.0, 0.0, 0.0)])
def test_the_face_points_to_the_target(robot: str, point: tuple[float, float, float]) -> None:
    profile = load_profile(robot)
    motion = retarget_motion(profile, still(3.0), gaze=[(0.0, point), (1.5, point)])
    forward = forward_rotation(profile.neck, motion.position[-1, : len(profile.neck)]).apply([1.0, 0.0, 0.0])
    wanted = np.asarray(point) / np.linalg.norm(point)
    angle = math.acos(np.clip(forward @ wanted, -1, 1))
    start = math.acos(wanted[0])
    assert angle < 0.03 or (robot == "nao" and angle < start)  # NAO's pitch is limited by its yaw


def test_the_turn_is_smooth_and_begins_after_a_persons_reaction() -> None:
    motion = retarget_motion(HEAD, still(3.0), gaze=[(0.5, LEFT), (2.0, LEFT)])
    seconds, yaw = motion.time_ns / SECOND, motion.position[:, YAW]
    target = direction(LEFT, (0, 0, 0))[0]
    assert np.abs(yaw[seconds < 0.5 + REACTION]).max() < 2e-3
    assert yaw[-1] == pytest.approx(target, abs=1e-3)
    assert (np.maximum.accumulate(yaw) - yaw).max() < 2e-3  # one movement; the smoothing swings by a tenth of a degree
    assert yaw.max() < target + 2e-3
    reached = seconds[np.flatnonzero(yaw > 0.95 * target)[0]]
    assert 0.8 < reached < 1.6
    within_limits(motion)


def test_motion_rides_on_top_of_the_gaze() -> None:
    """The nods with a gaze are the nods without one, around another direction."""
    looks = [(t, LEFT) for t in np.arange(0.0, 6.0, 0.5)]
    with_gaze = retarget_motion(HEAD, nodding(6.0), gaze=looks)
    without = retarget_motion(HEAD, nodding(6.0))
    late = slice(300, 550)
    yaw, pitch = direction(LEFT, (0, 0, 0))
    difference = with_gaze.position[late, :2] - without.position[late, :2]
    assert difference == pytest.approx(np.tile([yaw, pitch], (250, 1)), abs=2e-3)
    assert with_gaze.wanted[late, YAW] == pytest.approx(yaw, abs=1e-3)
    within_limits(with_gaze)


def test_the_total_stays_within_the_joints_limits() -> None:
    frames = nodding(8.0)
    frames[:, 54] = 0.5
    looks = [(float(t), (-1.0, 5.0, 3.0) if t % 2 else (-1.0, -5.0, -3.0)) for t in range(8)]
    motion = retarget_motion(HEAD, frames, gaze=looks)
    assert np.ptp(motion.position[:, YAW]) > 1.5
    within_limits(motion)


def test_a_lost_target_lets_the_head_go_back() -> None:
    options = RetargetOptions(gaze_timeout=1.0, timeout=60.0)
    retargeter = Retargeter(HEAD, options=options)
    retargeter.push(0, 25.0, still(1.0))
    for tenth in range(10):
        assert retargeter.look(tenth * SECOND // 10, LEFT) is not None
    motion = retargeter.advance(4 * SECOND)
    seconds, yaw = motion.time_ns / SECOND, motion.position[:, YAW]
    target = direction(LEFT, (0, 0, 0))[0]
    assert yaw[(seconds > 1.4) & (seconds < 1.9)] == pytest.approx(target, abs=0.01)
    assert motion.position[-1] == pytest.approx(HEAD.limits()["neutral"], abs=1e-4)
    within_limits(motion)
    # A plan for the controller has the way back in it: the robot goes back even if this program dies.
    retargeter.look(4 * SECOND, RIGHT)
    plan = retargeter.plan(9 * SECOND)
    assert plan.position[:, YAW].min() == pytest.approx(direction(RIGHT, (0, 0, 0))[0], abs=0.01)
    assert plan.position[-1, YAW] == pytest.approx(0.0, abs=1e-3)


def test_a_detectors_noise_moves_nothing_and_none_goes_back_at_once() -> None:
    retargeter = Retargeter(HEAD)
    retargeter.push(0, 25.0, still(1.0))
    retargeter.look(0, LEFT)
    retargeter.advance(2 * SECOND)
    for tenth in range(5):
        retargeter.look(2 * SECOND + tenth * SECOND // 10, tuple(x + 0.01 * (-1) ** tenth for x in LEFT))
    assert np.ptp(retargeter.advance(round(2.5 * SECOND)).position[:, YAW]) < 1e-6
    retargeter.look(round(2.5 * SECOND), None)
    assert retargeter.advance(5 * SECOND).position[-1, YAW] == pytest.approx(0.0, abs=1e-4)


def test_how_fast_a_target_travels_hardly_matters() -> None:
    def run(delays: list[float]) -> np.ndarray:
        retargeter = Retargeter(HEAD)
        retargeter.push(0, 25.0, nodding(6.0))
        parts = []
        for index, delay in enumerate(delays):
            stamp = (index + 1) * SECOND
            parts.append(retargeter.advance(stamp + round(delay * SECOND)))
            retargeter.look(stamp, LEFT if index % 2 else RIGHT)
        parts.append(retargeter.advance(6 * SECOND))
        return JointMotion.join([part for part in parts if len(part)]).position

    at_once = run([0.0] * 4)
    assert at_once.tobytes() == run([0.0] * 4).tobytes()
    assert np.abs(at_once - run([0.08, 0.02, 0.1, 0.07])).max() < 0.01
    assert np.abs(at_once - run([0.0, 0.0, 0.0, 0.5])).max() > 0.1


def test_an_interruption_keeps_the_gaze() -> None:
    retargeter = Retargeter(HEAD)
    retargeter.push(0, 25.0, nodding(6.0))
    for half in range(6):
        retargeter.look(half * SECOND // 2, LEFT)
        retargeter.advance(half * SECOND // 2)
    retargeter.cancel(round(2.5 * SECOND))
    motion = retargeter.advance(round(3.5 * SECOND))
    assert motion.position[:, YAW] == pytest.approx(direction(LEFT, (0, 0, 0))[0], abs=0.02)
    assert abs(motion.position[-1, PITCH] - direction(LEFT, (0, 0, 0))[1]) < 0.01


def test_origin_and_share() -> None:
    assert direction((2.0, 0.0, 1.0), (0.0, 0.0, 1.0)) == (0.0, 0.0)
    assert direction((1.0, 1.0, 0.0), (0.0, 0.0, math.sqrt(2))) == pytest.approx((math.pi / 4, math.pi / 4))
    options = RetargetOptions(gaze_origin=(0.0, 0.0, 1.2), gaze_share=0.5)
    motion = retarget_motion(HEAD, still(3.0), options=options, gaze=[(0.0, (1.0, 1.0, 1.2))])
    assert motion.position[150, YAW] == pytest.approx(math.pi / 8, abs=0.01)


@pytest.mark.parametrize("point", [(0.0, 0.0, 0.0), (math.nan, 1.0, 0.0), (math.inf, 0.0, 0.0)])
def test_no_direction_is_refused(point: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match="gaze target"):
        Retargeter(HEAD).look(0, point)


def test_without_a_target_nothing_changes() -> None:
    frames = nodding(3.0)
    plain, never = (retarget_motion(HEAD, frames, options=RetargetOptions(gaze_share=s)) for s in (1.0, 0.3))
    assert plain.position.tobytes() == never.position.tobytes()
