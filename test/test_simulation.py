"""The simulated head: a controller's rules, dynamics that follow, pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timar_ros.errors import UserError
from timar_ros.retarget import list_profiles, load_profile, retarget_motion
from timar_ros.retarget.robot_check import sweeps
from timar_ros.simulation.controller import ForwardController, RejectedError, TrajectoryController
from timar_ros.simulation.head import KinematicHead, MujocoHead, make_head
from timar_ros.simulation.mjcf import urdf_to_mjcf

NOW = 5_000_000_000
SECOND = 1_000_000_000


def controller(**options) -> TrajectoryController:
    made = TrajectoryController(["a", "b"], **options)
    made.reset([0.1, -0.1])
    return made


def take(made: TrajectoryController, stamp=0, names=("a", "b"), times=(1.0,), p=((1.0, 2.0),), v=None, a=None, now=NOW):
    made.take(now, stamp, list(names), list(times), p, v, a)


def test_a_trajectory_is_approached_from_the_state_at_hand():
    made = controller()
    take(made)
    assert made.sample(NOW)[0].tolist() == [0.1, -0.1]
    assert made.sample(NOW + SECOND // 2)[0] == pytest.approx([0.55, 0.95])
    assert made.sample(NOW + 5 * SECOND).tolist() == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]


def test_a_stamp_says_when_it_begins():
    made = controller()
    take(made, stamp=NOW + SECOND, times=(0.5, 1.0), p=((0.5, 0.5), (1.0, 2.0)))
    assert made.sample(NOW + 1_500_000_000)[0] == pytest.approx([0.5, 0.5])
    assert made.sample(NOW + 2 * SECOND)[0] == pytest.approx([1.0, 2.0])


def test_a_first_point_in_the_past_leaves_no_ramp():
    made = controller()
    take(made, stamp=NOW - SECOND, times=(0.5, 1.5), p=((0.0, 0.0), (1.0, 1.0)))
    assert made.sample(NOW)[0] == pytest.approx([0.5, 0.5])


def test_a_new_trajectory_replaces_the_old_one_at_once():
    made = controller()
    take(made)
    middle = NOW + SECOND // 2
    take(made, p=((0.0, 0.0),), now=middle)
    assert made.sample(middle)[0] == pytest.approx([0.55, 0.95])
    assert made.sample(middle + SECOND)[0] == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize("order", [1, 3, 5])
def test_interpolation_is_by_what_the_points_carry(order):
    """Linear, cubic and quintic pieces reproduce polynomials of their own degree exactly."""
    rng = np.random.default_rng(order)
    coefficients = rng.normal(size=(order + 1, 2))
    times = np.array([0.2, 0.5, 0.9])

    def polynomial(t, derivative=0):
        powers = [np.polynomial.polynomial.Polynomial(c).deriv(derivative)(t) for c in coefficients.T]
        return np.stack(powers, axis=-1)

    made = controller(allow_moving_end=True)
    made.take(
        NOW, NOW, ["a", "b"], times, polynomial(times),
        polynomial(times, 1) if order > 1 else None, polynomial(times, 2) if order > 3 else None,
    )  # fmt: skip
    for t in (0.25, 0.4, 0.7, 0.85):
        sample = made.sample(NOW + round(t * SECOND))
        assert sample[0] == pytest.approx(polynomial(t), abs=1e-9)
        assert sample[1] == pytest.approx(polynomial(t, 1), abs=1e-8)
        if order > 1:
            assert sample[2] == pytest.approx(polynomial(t, 2), abs=1e-7)


BAD = {
    "empty": ({"times": (), "p": np.zeros((0, 2))}, "no points"),
    "unknown joint": ({"names": ("a", "c")}, "unknown joints c"),
    "twice": ({"names": ("a", "a")}, "named twice"),
    "not increasing": ({"times": (1.0, 1.0), "p": np.zeros((2, 2))}, "strictly increasing"),
    "negative time": ({"times": (-1.0,)}, "not negative"),
    "wrong width": ({"p": ((1.0,),)}, "positions have shape"),
    "velocities of another size": ({"v": ((1.0,),)}, "velocities have shape"),
    "not finite": ({"p": ((np.nan, 0.0),)}, "not finite"),
    "moving end": ({"v": ((0.0, 0.5),)}, "velocity of the last point"),
    "acceleration alone": ({"a": ((0.0, 0.0),)}, "need velocities"),
    "past": ({"stamp": NOW - 3 * SECOND}, "in the past"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_controller_would_refuse_is_refused_and_the_old_one_goes_on(case):
    made = controller()
    take(made)
    arguments, reason = BAD[case]
    with pytest.raises(RejectedError, match=reason):
        take(made, **arguments)
    assert made.sample(NOW + SECOND)[0] == pytest.approx([1.0, 2.0])


def test_joints_may_be_left_out_only_when_allowed():
    made = controller()
    take(made, names=("b",), p=((0.7,),))
    assert made.sample(NOW + SECOND)[0] == pytest.approx([0.1, 0.7])
    with pytest.raises(RejectedError, match="missing"):
        take(controller(allow_partial=False), names=("b",), p=((0.7,),))


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.floats(0.05, 0.4), min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_replacement_never_jumps(cuts, seed):
    """Trajectories that begin ahead of now never make the reference leap, whenever they come."""
    rng = np.random.default_rng(seed)
    made = controller()
    now, last = NOW, made.sample(NOW)[0]
    for cut in cuts:
        take(made, times=(0.2, 0.5), p=rng.uniform(-1, 1, (2, 2)), v=((1.0, -1.0), (0.0, 0.0)), now=now)
        end = now + round(cut * SECOND)
        for t in range(now, end, 2_000_000):
            position = made.sample(t)[0]
            assert np.abs(position - last).max() < 0.1
            last = position
        now = end


def test_forward_commands():
    made = ForwardController(["a", "b"])
    assert made.take([0.1, 0.2]).tolist() == [0.1, 0.2]
    with pytest.raises(RejectedError, match="1 commands for 2 joints"):
        made.take([0.1])
    with pytest.raises(RejectedError, match="not finite"):
        made.take([0.1, np.inf])


def test_the_kinematic_head_is_where_it_is_told_within_its_limits():
    profile = load_profile("nao")
    head = KinematicHead(profile)
    head.command([0.5, 9.0])
    head.step(0.1)
    reading = head.read()
    assert reading.position == pytest.approx([0.5, profile.neck[1].upper])
    assert reading.velocity[0] == pytest.approx(5.0)


@pytest.mark.parametrize("robot", list_profiles())
def test_the_dynamic_head_follows_within_three_degrees(robot):
    pytest.importorskip("mujoco")
    profile = load_profile(robot)
    head = MujocoHead(profile)
    assert head.read().position == pytest.approx(profile.limits()["neutral"])
    motion = retarget_motion(profile, sweeps()["talk"])
    errors = []
    for wanted in motion.position:
        head.command(wanted)
        head.step(0.01)
        errors.append(np.abs(head.read().position - wanted))
    assert np.degrees(np.percentile(errors, 95, axis=0)).max() < 3.0


def test_time_in_any_pieces_is_the_same():
    pytest.importorskip("mujoco")
    whole, pieces = (MujocoHead(load_profile("timar_head")) for _ in range(2))
    wanted = [0.3, 0.2, -0.1, 0.2, 0.0, 0.0]
    whole.command(wanted)
    whole.step(0.1)
    pieces.command(wanted)
    for _ in range(250):
        pieces.step(0.0004)
    assert pieces.read().position == pytest.approx(whole.read().position)


def test_without_mujoco_there_is_a_kinematic_head(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mujoco", None)
    profile = load_profile("timar_head")
    assert make_head(profile).engine == "kinematic"
    with pytest.raises(UserError, match="pip install mujoco"):
        make_head(profile, "mujoco")


def test_urdf_that_is_none():
    with pytest.raises(UserError, match="no valid URDF"):
        urdf_to_mjcf("<robot>")


def test_every_joint_follows_equally_well_whatever_it_carries():
    pytest.importorskip("mujoco")
    profile = load_profile("timar_head")
    head = MujocoHead(profile)
    limits = profile.limits()
    size = 0.4 * np.minimum(limits["upper"] - limits["neutral"], limits["neutral"] - limits["lower"])
    size = np.where(size > 0, size, 0.2 * (limits["upper"] - limits["lower"]))
    middle = np.where(limits["neutral"] > limits["lower"], limits["neutral"], limits["lower"] + size)
    errors = []
    for tick in range(300):
        wanted = middle + size * np.sin(2 * np.pi * 0.01 * tick)
        head.command(wanted)
        head.step(0.01)
        errors.append(np.abs(head.read().position - wanted))
    # A servo 30 ms late is off by so much at a sine of 1 Hz.
    assert (np.max(errors[100:], axis=0) <= 2 * np.pi * 0.03 * size).all()


def test_pictures(tmp_path):
    pytest.importorskip("mujoco")
    from timar_ros.simulation.render import Camera, Film, write_png

    head = MujocoHead(load_profile("timar_head"))
    try:
        camera = Camera(head, 160, 120)
    except UserError as error:
        pytest.skip(f"no OpenGL library to draw with: {error}")
    picture = camera.draw()
    write_png(tmp_path / "still.png", picture)
    assert (tmp_path / "still.png").read_bytes().startswith(b"\x89PNG")
    assert picture.shape == (120, 160, 3)
    assert picture.std() > 20  # a head, not a blank
    pytest.importorskip("imageio_ffmpeg")
    with Film(tmp_path / "film.mp4", 160, 120) as film:
        for _ in range(5):
            film.add(picture)
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"

    def break_off() -> None:
        with Film(tmp_path / "broken.mp4", 160, 120) as film:
            film.add(picture)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.mp4", "still.png"]
    camera.close()


def test_pictures_need_a_model():
    from timar_ros.simulation.render import Camera

    with pytest.raises(UserError, match="pip install mujoco"):
        Camera(KinematicHead(load_profile("nao")))
