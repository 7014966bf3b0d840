"""Whatever comes in, what goes out keeps every limit: the promise that a robot relies on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.hostile import KINDS, hostile

from timar_ros.retarget import JointMotion, Retargeter, RetargetOptions, list_profiles, load_profile, retarget_motion
from timar_ros.retarget.follow import Curve, Follower
from timar_ros.retarget.profile import Joint, NeckJoint, RobotProfile
from timar_ros.retarget.robot_check import violations
from timar_ros.retarget.stopping import stop_phases, stop_range, stop_reach, stop_samples

ROBOTS = list_profiles()
TOLERANCE = 1e-6


def assert_kept(profile: RobotProfile, motion: JointMotion) -> None:
    for limit, worst in violations(profile, motion).items():
        assert worst <= TOLERANCE, f"{profile.name}: {limit} exceeded by {worst}"
    assert np.isfinite(motion.position).all()
    assert (np.diff(motion.time_ns) > 0).all()
    assert np.isfinite(motion.rotation).all()
    assert ((motion.mouth >= 0) & (motion.mouth <= 1)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("robot", ROBOTS)
def test_hostile_motion_keeps_every_limit(robot, kind):
    profile = load_profile(robot)
    motion = retarget_motion(profile, hostile(kind, 150, seed=len(robot)))
    assert_kept(profile, motion)
    assert np.abs(motion.velocity[0]).max() == 0.0
    assert np.abs(motion.velocity[-1]).max() == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("robot", ROBOTS)
def test_long_hostile_streams_keep_every_limit(robot):
    profile = load_profile(robot)
    retargeter = Retargeter(profile)
    chunk, last = 500, None
    for index in range(20):
        stamp = round(index * chunk * 4e7)
        retargeter.push(stamp, 25.0, hostile(KINDS[index % len(KINDS)], chunk, seed=index))
        part = retargeter.advance(stamp + round((chunk - 20) * 4e7))
        assert_kept(profile, part if last is None else JointMotion.join([last, part]))
        last = part[-1:]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_stream_any_handling_keeps_every_limit(data):
    """Gaps, overlaps, late chunks, odd rates, soft stops, gaze, targets and leaps of the robot's own position."""
    profile = load_profile(data.draw(st.sampled_from(ROBOTS), "robot"))
    rate = data.draw(st.sampled_from([20.0, 50.0, 100.0, 333.0, 1000.0]), "rate")
    options = RetargetOptions(
        idle_amplitude=data.draw(st.sampled_from([0.0, 0.1])),
        resume=data.draw(st.sampled_from([0.0, 0.3])),
        neutral=data.draw(st.sampled_from(["none", "running"])),
        gaze_mode=data.draw(st.sampled_from(["yield", "nods"])),
        listening_speed=data.draw(st.sampled_from([1.0, 0.2])),
        timeout=0.2,
    )
    retargeter = Retargeter(profile, rate, options)
    start = {name: data.draw(st.floats(-4, 4)) for name in profile.names}
    retargeter.start(0, start)
    now, parts = 0, []
    for _ in range(data.draw(st.integers(1, 8), "chunks")):
        now += data.draw(st.integers(1, 1_500_000_000))
        actions = ["push", "push", "push", "stop", "go", "gaze", "free", "out", "cancel", "look"]
        action = data.draw(st.sampled_from(actions))
        if action == "push":
            kind = data.draw(st.sampled_from(KINDS))
            frames = hostile(kind, data.draw(st.integers(1, 40)), data.draw(st.integers(0, 99)))
            stamp = now + data.draw(st.integers(-600_000_000, 600_000_000))
            retargeter.push(
                stamp, data.draw(st.sampled_from([5.0, 25.0, 29.97, 120.0])), frames, np.arange(len(frames)) % 2
            )
        elif action in ("stop", "go"):
            retargeter.enable(action == "go")
        elif action in ("gaze", "free"):
            retargeter.set_gaze(action == "gaze", {profile.names[0]: data.draw(st.floats(-3, 3))})
        elif action == "look":
            retargeter.look(now - data.draw(st.integers(0, 600_000_000)), [data.draw(st.floats(0.1, 9)) for _ in "xyz"])
        elif action == "out":
            retargeter.ease_out()
        elif action == "cancel":
            last = retargeter.cancel(now - data.draw(st.integers(-100_000_000, 400_000_000)))
            parts = [part[: int(np.searchsorted(part.time_ns, last, side="right"))] for part in parts]
        parts.append(retargeter.advance(now))
    # While another controller owns the neck it is not ours to keep within limits.
    parts = [part for part in parts if len(part)]
    if parts:
        assert_kept(profile, JointMotion.join(parts))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    velocity=st.floats(0.1, 20.0),
    acceleration=st.floats(0.5, 200.0),
    jerk=st.floats(2.0, 20_000.0),
    width=st.floats(0.01, 3.0),
)
def test_any_joint_keeps_its_limits(seed, velocity, acceleration, jerk, width):
    joint = NeckJoint("neck", -width, width, velocity, acceleration, jerk, axis=(0.0, 1.0, 0.0))
    jaw = load_profile("timar_head").jaw
    jaw = dataclasses.replace(jaw, joint=Joint("jaw", 0.0, width, velocity, acceleration, jerk), open_position=width)
    profile = RobotProfile("any", "any", "", "", "trajectory", (joint,), jaw)
    assert_kept(profile, retarget_motion(profile, hostile(KINDS[seed % len(KINDS)], 100, seed)))


@pytest.mark.parametrize("robot", ["timar_head", "nao", "romeo"])
def test_the_result_does_not_depend_on_how_time_is_advanced(robot):
    profile = load_profile(robot)
    frames = np.concatenate([0.2 * hostile("wander", 60), hostile("steps", 60), hostile("broken", 60)])
    rng = np.random.default_rng(3)

    def made(cuts) -> JointMotion:
        retargeter = Retargeter(profile)
        retargeter.push(123_456_789, 25.0, frames)
        return JointMotion.join([part for part in (retargeter.advance(int(t)) for t in cuts) if len(part)])

    end = 123_456_789 + 8_000_000_000
    once = made([end])
    for cuts in ([*sorted(rng.integers(0, end, 300)), end], [*range(0, end, 10_000_000), end]):
        many = made(cuts)
        for name in ("time_ns", "position", "velocity", "acceleration", "mouth", "lost_angle", "rotation"):
            assert np.array_equal(getattr(once, name), getattr(many, name)), name


@pytest.mark.parametrize("robot", ["timar_head", "nao"])
def test_pushed_turn_by_turn_gives_the_same_as_pushed_at_once(robot):
    """As long as each turn comes a look-ahead before it is shown, live and offline are the same to the bit."""
    profile = load_profile(robot)
    rng = np.random.default_rng(5)
    t = np.arange(250)[:, None] / 25
    frames = np.zeros((250, 56))
    frames[:, 53:] = 0.12 * np.sin(2 * np.pi * rng.uniform(0.2, 1.2, 3) * t + rng.uniform(0, 6, 3))
    frames[:, 50] = 0.15 + 0.1 * np.sin(2 * np.pi * 2.5 * t[:, 0])
    whole = Retargeter(profile)
    whole.push(0, 25.0, frames)
    turns = Retargeter(profile)
    ahead = round((turns.lookahead + 0.04) * 1e9)
    parts = []
    for turn in range(10):
        begin = turn * 1_000_000_000
        parts.append(turns.advance(begin - ahead))
        turns.push(begin, 25.0, frames[25 * turn : 25 * (turn + 1)])
    parts.append(turns.advance(9_500_000_000))
    live = JointMotion.join([part for part in parts if len(part)])
    offline = whole.advance(9_500_000_000)
    assert np.array_equal(live.position, offline.position)
    assert np.array_equal(live.acceleration, offline.acceleration)


def test_naos_pitch_is_limited_by_its_yaw_while_both_move():
    profile = load_profile("nao")
    coupling = profile.couplings[0]
    t = np.arange(500) / 25
    frames = np.zeros((500, 56))
    frames[:, 54] = 1.9 * np.sin(2 * np.pi * 0.3 * t)
    frames[:, 53] = np.where(np.arange(500) // 40 % 2, 0.5, -0.66)
    motion = retarget_motion(profile, frames)
    lower, upper = coupling.bounds(motion.position[:, 0])
    pitch = motion.position[:, 1]
    assert (pitch >= lower - TOLERANCE).all()
    assert (pitch <= upper + TOLERANCE).all()
    # And the range is used, not avoided.
    assert (pitch > upper - 0.03).mean() > 0.1
    assert np.ptp(motion.position[:, 0]) > 3.0


@pytest.mark.parametrize(("above", "fits"), [(0.00015, False), (-0.001, True)])
def test_limits_hold_between_the_ticks_too(above, fits):
    """A velocity that peaks above its limit between two ticks only shows in the positions' differences."""
    profile = load_profile("sawyer")
    follower = Follower(profile, 100.0)
    limit, jerk = follower.limits.velocity[0], follower.limits.jerk[0] / 10
    t = (np.arange(-5, 5) + 0.5)[:, None] / 100  # the peak lies half-way between two ticks
    velocity = limit + above - jerk / 2 * t**2
    assert velocity.max() < limit
    none = np.zeros_like(t)
    curve = Curve((limit + above) * t - jerk / 6 * t**3, velocity, -jerk * t, np.full_like(t, jerk), none)
    assert follower._fit(curve)[4:6].all() == fits


@pytest.mark.parametrize(("above", "kept"), [(0.002, False), (-0.002, True)])
def test_a_path_back_keeps_its_limits_between_the_ticks_too(above, kept):
    """Ruckig may give a path whose velocity peaks between two ticks, or whose position turns there."""
    follower = Follower(load_profile("tiago"), 100.0)
    limits = follower.limits
    t = (np.arange(0, 5) - 2.5)[:, None] / 100  # extremes half-way between two ticks
    half = np.full_like(t, 0.5)
    peak, jerk = limits.velocity[0] + above, 0.9 * limits.jerk[0]
    fast = np.concatenate([t * (peak - jerk * t**2 / 6), peak - jerk * half * t**2, -jerk * t], axis=1)
    assert np.abs(fast[:, 1]).max() < limits.velocity[0]
    turn, brake = limits.upper[0] + above / 20, 0.5 * limits.acceleration[0]
    far = np.concatenate([turn - brake * half * t**2, -brake * t, np.full_like(t, -brake)], axis=1)
    assert far[:, 0].max() < limits.upper[0]
    for states in (fast, far):
        follower.state[0] = states[0]
        assert follower._keeps(0, states[1:]) == kept


@settings(max_examples=200, deadline=None)
@example(v=0.5, share=-1.0, limit=10.0, jerk=100.0, p=0.0)  # on the last ramp of a stop
@example(v=-0.5, share=1.0, limit=10.0, jerk=100.0, p=0.0)
@given(
    v=st.floats(-5, 5), share=st.floats(-1, 1), limit=st.floats(0.5, 50), jerk=st.floats(1, 5000), p=st.floats(-1, 1)
)
def test_the_fastest_stop(v, share, limit, jerk, p):
    a = share * limit
    phases = stop_phases(v, a, limit, jerk)
    duration = sum(length for length, _ in phases)
    assert all(length >= 0 for length, _ in phases)
    times = np.linspace(0, duration + 0.01, 2000)
    samples = stop_samples((p, v, a), limit, jerk, times.tolist())
    assert samples[-1, 1:] == pytest.approx([0.0, 0.0])
    assert np.abs(samples[:, 2]).max() <= limit * (1 + 1e-9)
    low, high = stop_range(p, v, a, limit, jerk)
    below, above = stop_reach(*(np.array([x]) for x in (v, a, limit, jerk)))
    assert (p - below[0], p + above[0]) == pytest.approx((low, high), abs=1e-9)
    assert samples[:, 0].min() >= low - 1e-7
    assert samples[:, 0].max() <= high + 1e-7
    # In the direction that is braked the reach is exact.
    settled = v + a * abs(a) / (2 * jerk)
    reached, exact = (samples[:, 0].max(), high) if settled > 0 else (samples[:, 0].min(), low)
    assert reached == pytest.approx(exact, abs=1e-6)
