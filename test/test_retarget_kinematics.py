"""From a wanted head rotation to joint angles and back, on the robots' own chains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from support.robot_chains import CHAINS

from timar_ros.retarget import list_profiles, load_profile
from timar_ros.retarget.kinematics import Neck, forward_rotation
from timar_ros.retarget.oblique import ObliqueNeck
from timar_ros.retarget.profile import NeckJoint, RobotProfile
from timar_ros.retarget.rotations import angle_between, flame_to_rep, rep_to_flame

ROBOTS = list_profiles()
X, Y, Z = np.eye(3)


def random_positions(profile: RobotProfile, count: int, seed: int = 0) -> np.ndarray:
    """Neck positions that the profile allows, shape [count, J]."""
    rng = np.random.default_rng(seed)
    lower = np.array([joint.lower for joint in profile.neck])
    upper = np.array([joint.upper for joint in profile.neck])
    return Neck(profile).clamp(rng.uniform(lower, upper, (count, len(lower))))


def test_flame_axes_are_rep_axes():
    # FLAME x is the subject's left, REP's y; FLAME y is up, REP's z; FLAME z is out of the face, REP's x.
    assert flame_to_rep([1, 0, 0]).tolist() == [0, 1, 0]
    assert flame_to_rep([0, 1, 0]).tolist() == [0, 0, 1]
    assert flame_to_rep([0, 0, 1]).tolist() == [1, 0, 0]
    vectors = np.random.default_rng(0).normal(size=(50, 3))
    assert np.array_equal(rep_to_flame(flame_to_rep(vectors)), vectors)


@pytest.mark.parametrize(
    ("flame", "point", "moves"),
    [
        ([0.3, 0, 0], X, -Z),  # FLAME +x: the face (which looks along x) goes down
        ([0, 0.3, 0], X, Y),  # FLAME +y: the face turns to the subject's left
        ([0, 0, 0.3], Z, -Y),  # FLAME +z: the top of the head goes to the subject's right
    ],
)
def test_signs(flame, point, moves):
    turned = Rotation.from_rotvec(flame_to_rep(flame)).apply(point)
    assert (turned - point) @ moves > 0.25


def test_the_change_of_axes_is_a_change_of_basis():
    permutation = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # REP coordinates of a vector given in FLAME's
    assert np.linalg.det(permutation) == pytest.approx(1.0)
    vectors = np.random.default_rng(1).normal(size=(20, 3))
    for vector in vectors:
        direct = Rotation.from_rotvec(flame_to_rep(vector)).as_matrix()
        by_basis = permutation @ Rotation.from_rotvec(vector).as_matrix() @ permutation.T
        assert np.allclose(direct, by_basis)


@pytest.mark.parametrize("robot", sorted(CHAINS))
def test_forward_kinematics_is_that_of_the_robots_own_chain(robot):
    pinocchio = pytest.importorskip("pinocchio")
    profile = load_profile(robot)
    model = pinocchio.buildModelFromXML(CHAINS[robot].urdf())
    data = model.createData()
    names = [joint.name for joint in profile.neck]
    assert list(model.names)[1:] == names

    def rotation(positions) -> np.ndarray:
        pinocchio.forwardKinematics(model, data, np.asarray(positions))
        pinocchio.updateFramePlacements(model, data)
        return data.oMf[model.nframes - 1].rotation.copy()  # a view of data otherwise

    neutral = rotation([joint.neutral for joint in profile.neck])
    for positions in random_positions(profile, 50):
        # The head's rotation against its neutral pose, in the body's axes.
        expected = rotation(positions) @ neutral.T
        assert np.allclose(forward_rotation(profile.neck, positions).as_matrix(), expected, atol=1e-6)
    # At neutral the robot looks straight ahead: FLAME's head and the robot's then have the same axes.
    if robot == "reachy2":
        assert np.allclose(neutral, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("robot", ROBOTS)
def test_round_trip_wherever_it_is_reachable(robot):
    profile = load_profile(robot)
    neck = Neck(profile)
    wanted = forward_rotation(profile.neck, random_positions(profile, 500))
    positions, lost = neck.solve(wanted)
    reached = forward_rotation(profile.neck, positions)
    assert angle_between(wanted, reached).max() < 1e-6
    assert lost.max() < 1e-6
    assert neck.closed_form == (robot != "romeo")


@pytest.mark.parametrize("robot", ROBOTS)
def test_solutions_lie_within_the_limits_and_the_lost_angle_is_told(robot):
    profile = load_profile(robot)
    wanted = Rotation.random(300, random_state=2)
    positions, lost = Neck(profile).solve(wanted)
    assert np.array_equal(positions, Neck(profile).clamp(positions))
    assert np.allclose(lost, angle_between(wanted, forward_rotation(profile.neck, positions)))
    assert lost.max() > 0.5


@settings(max_examples=40, deadline=None)
@given(yaw=st.floats(-0.8, 0.8), pitch=st.floats(-0.3, 0.3), roll=st.floats(-0.6, 0.6))
def test_roll_never_becomes_yaw(yaw, pitch, roll):
    """A neck that cannot roll still looks exactly where it should, and loses exactly the roll."""
    for robot in ("tiago", "pepper", "unitree_h2"):
        profile = load_profile(robot)
        chain = "ZY" if robot != "unitree_h2" else "YZ"
        angles = (yaw, pitch) if chain == "ZY" else (pitch, yaw)
        gaze = Rotation.from_euler(chain, angles)
        wanted = gaze * Rotation.from_rotvec([roll, 0, 0])
        positions, lost = Neck(profile).solve(Rotation.concatenate([wanted]))
        assert forward_rotation(profile.neck, positions[0]).apply(X) == pytest.approx(gaze.apply(X), abs=1e-9)
        assert lost[0] == pytest.approx(abs(roll), abs=1e-9)


def test_a_single_pan_takes_the_yaw_and_nothing_else():
    profile = load_profile("sawyer")
    wanted = Rotation.from_euler("ZYX", [[0.4, 0.3, 0.2], [0.0, 0.3, 0.2]])
    positions, lost = Neck(profile).solve(wanted)
    assert positions[:, 0] == pytest.approx([0.4, 0.0])
    assert (lost > 0.3).all()


def test_a_middle_joint_may_turn_beyond_a_right_angle():
    # Unitree H2's yaw comes after its pitch and reaches 100 degrees: there Euler angles have two answers.
    profile = load_profile("unitree_h2")
    positions, lost = Neck(profile).solve(Rotation.from_rotvec([[0, 0, 1.7], [0, 0, -1.7]]))
    assert positions[:, 1] == pytest.approx([1.7, -1.7])
    assert np.abs(positions[:, 0]).max() < 1e-9
    assert lost.max() < 1e-9


def neck_of(*axes, limit: float = 1.0) -> RobotProfile:
    joints = [
        NeckJoint(f"j{i}", -limit, limit, 3.0, 30.0, 600.0, axis=tuple(float(x) for x in axis / np.linalg.norm(axis)))
        for i, axis in enumerate(np.asarray(axes, float))
    ]
    return RobotProfile("any", "any", "", "", "trajectory", tuple(joints))


ORDERS = [(Z, Y, X), (X, Y, Z), (Y, Z, X), (Y, X, Z), (X, Z, Y), (Z, X, Y)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_any_order_of_three_orthogonal_joints_has_a_closed_form(order, signs):
    profile = neck_of(*(s * axis for s, axis in zip(signs, order, strict=True)))
    assert Neck(profile).closed_form
    wanted = forward_rotation(profile.neck, random_positions(profile, 200))
    assert Neck(profile).solve(wanted)[1].max() < 1e-6


@pytest.mark.parametrize("order", [(Z,), (Y,), (X,), (Z, Y), (Y, Z), (Z, X), (X, Z), (X, Y), (Y, X)])
def test_fewer_joints_reach_what_they_can(order):
    profile = neck_of(*order)
    wanted = forward_rotation(profile.neck, random_positions(profile, 200))
    assert Neck(profile).closed_form
    assert Neck(profile).solve(wanted)[1].max() < 1e-6


def test_oblique_necks_by_least_squares():
    profile = neck_of([0.3, 0.1, 1.0], [0.1, 1.0, 0.2], [1.0, -0.1, 0.3], limit=0.8)
    assert not Neck(profile).closed_form
    wanted = forward_rotation(profile.neck, random_positions(profile, 300))
    assert Neck(profile).solve(wanted)[1].max() < 1e-6


@pytest.mark.parametrize("reach", [0.3, 0.9])
def test_bounded_least_squares_is_as_near_as_scipys(reach):
    """Where a rotation is out of reach, ours comes as near as a general solver, in the neck's own weighting."""
    profile = load_profile("romeo")
    axes = np.array([joint.signed_axis for joint in profile.neck])
    lower = np.array([joint.lower for joint in profile.neck])
    upper = np.array([joint.upper for joint in profile.neck])
    wanted = Rotation.from_rotvec(np.random.default_rng(4).uniform(-reach, reach, (12, 3)))
    ours = ObliqueNeck(axes, lower, upper).solve(wanted)
    missed = angle_between(wanted, forward_rotation(profile.neck, ours))
    for index, target in enumerate(wanted):

        def error(q, target=target):
            return (forward_rotation(profile.neck, q).inv() * target).as_rotvec()

        best = least_squares(error, np.zeros(4), bounds=(lower, upper), xtol=1e-12, ftol=1e-12, gtol=1e-12)
        assert missed[index] <= np.linalg.norm(best.fun) + 2e-3


def test_redundant_pitch_is_shared():
    profile = load_profile("romeo")
    neck, head = (next(i for i, j in enumerate(profile.neck) if j.name == n) for n in ("NeckPitch", "HeadPitch"))
    positions, lost = Neck(profile).solve(Rotation.from_rotvec([[0, 0.4, 0]]))
    assert lost[0] < 1e-6
    assert positions[0, neck] > positions[0, head] > 0.05
    still, _ = Neck(profile).solve(Rotation.identity(1))
    assert np.abs(still).max() < 1e-9
