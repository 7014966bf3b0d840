"""Seams between turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from timar_ros.streaming.seams import Inertialiser, seam_ratio

PARTS = [slice(0, 50), slice(50, 53), slice(53, 56)]


def smooth(count=250, seed=0, rotation=0.4):
    """Motion of a few slow waves, plausible in size."""
    rng = np.random.default_rng(seed)
    t = np.arange(count)[:, None] / 25
    motion = sum(np.sin(2 * np.pi * f * t + rng.uniform(0, 7, 56)) for f in (0.3, 0.7, 1.1)) / 3
    motion[:, 50:] *= rotation
    return motion.astype(np.float32)


def jumping(motion, size=0.5, seed=1):
    """Each turn of 25 frames moved by its own offset."""
    offsets = np.random.default_rng(seed).standard_normal((len(motion) // 25, 56)) * size * motion.std(0)
    return (motion + np.repeat(offsets, 25, axis=0)).astype(np.float32)


def joined(motion, **options):
    inertialiser = Inertialiser(**options)
    return np.concatenate([inertialiser.apply(turn) for turn in motion.reshape(-1, 25, 56)])


def test_the_ratio_before_and_after():
    motion = jumping(smooth())
    before, after = seam_ratio(motion), seam_ratio(joined(motion))
    for name in ("expression", "jaw", "head_pose"):
        assert before[name] > 3.0
        assert 0.3 < after[name] < 1.1


def test_ratio_of_known_motion():
    steps = np.ones((49, 56), np.float32)
    steps[24] = 3.0
    motion = np.concatenate([np.zeros((1, 56), np.float32), np.cumsum(steps, axis=0)])
    assert seam_ratio(motion) == {"expression": 3.0, "jaw": 3.0, "head_pose": 3.0}
    assert np.isnan(seam_ratio(motion[:20])["jaw"])
    assert np.isnan(seam_ratio(np.zeros((60, 56), np.float32))["jaw"])


def test_seamless_motion_is_left_alone():
    motion = smooth()
    assert np.abs(joined(motion) - motion).max() < 0.06  # a slow wave runs on nearly straight


def test_the_face_may_fade_sooner_than_the_head():
    motion = jumping(smooth())
    made = joined(motion, face_frames=2).reshape(-1, 25, 56)
    plain, turns = joined(motion).reshape(-1, 25, 56), motion.reshape(-1, 25, 56)
    np.testing.assert_allclose(made[:, 1:, :53], turns[:, 1:, :53], atol=1e-6)
    assert np.abs(plain[1:, 1, :53] - turns[1:, 1, :53]).max() > 0.01
    np.testing.assert_array_equal(made[..., 53:], plain[..., 53:])


def test_frames_after_the_fade_are_untouched():
    motion = jumping(smooth())
    made = joined(motion, frames=8).reshape(-1, 25, 56)
    np.testing.assert_allclose(made[:, 8:], motion.reshape(-1, 25, 56)[:, 8:], atol=1e-5)
    np.testing.assert_array_equal(made[0], motion[:25])


def test_off_changes_nothing():
    motion = jumping(smooth())
    np.testing.assert_array_equal(joined(motion, enabled=False), motion)


@settings(max_examples=50, deadline=None)
@given(
    a=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    b=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    spin=st.lists(st.floats(-0.05, 0.05), min_size=6, max_size=6),
)
def test_rotation_and_its_velocity_are_continuous(a, b, spin):
    """Two turns at constant angular velocities: the step across the seam is the old turn's, nearly."""
    index = np.arange(25)[:, None]
    turns = []
    for start, rate in ((a, spin[:3]), (b, spin[3:])):
        motion = np.zeros((25, 56), np.float32)
        motion[:, 53:] = (Rotation.from_rotvec(index * np.array(rate)) * Rotation.from_rotvec(start)).as_rotvec()
        turns.append(motion)
    inertialiser = Inertialiser(frames=12)
    made = [inertialiser.apply(turn)[:, 53:] for turn in turns]
    last = Rotation.from_rotvec(made[0][-1])
    step = (Rotation.from_rotvec(made[1][0]) * last.inv()).as_rotvec()
    # x''(0) = 0: the first step differs from the old velocity by the cubic's share alone, and by the turning axes.
    gap = (last * Rotation.from_rotvec(turns[1][0, 53:]).inv()).magnitude()
    assert np.abs(step - spin[:3]).max() < 10 * gap / 12**3 + 6 * 0.17 / 12**2 + 0.02 * gap
    np.testing.assert_allclose(made[1][12:], turns[1][12:, 53:], atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 20), st.integers(0, 1000), st.sampled_from([5, 25, 50]))
def test_always_finite_and_bounded(frames, seed, length):
    rng = np.random.default_rng(seed)
    inertialiser = Inertialiser(frames=frames)
    for _ in range(6):
        motion = (rng.standard_normal((length, 56)) * 0.5).astype(np.float32)
        made = inertialiser.apply(motion)
        assert made.dtype == np.float32
        assert made.shape == motion.shape
        assert np.isfinite(made).all()
        assert np.abs(made[:, :50]).max() < 20


def test_after_missing_turns_only_the_place_goes_on():
    motion = smooth(75).reshape(3, 25, 56)
    inertialiser = Inertialiser()
    first = inertialiser.apply(motion[0])
    made = inertialiser.apply(motion[2], follows=False)
    # The offset starts at rest and so stays near its size for a frame.
    assert np.abs(made[0] - first[-1]).max() < np.abs(motion[2][0] - first[-1]).max()


def test_state_goes_on():
    motion = jumping(smooth(100)).reshape(-1, 25, 56)
    one, two = Inertialiser(), Inertialiser()
    one.apply(motion[0])
    two.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one.apply(motion[1]), two.apply(motion[1]))
    one.reset()
    np.testing.assert_array_equal(one.apply(motion[2]), motion[2])


def test_options():
    with pytest.raises(ValueError, match="frames"):
        Inertialiser(frames=1)
