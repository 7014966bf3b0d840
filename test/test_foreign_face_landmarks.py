"""A face landmarker's result as FLAME frames: signs, neutral pose, jaw, times, loss of the face."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from timar_ros.foreign.face_landmarks import Face, FaceFrames, matrix_of, rotation_of
from timar_ros.retarget.avatar import ARKIT, JAW_OPEN, AvatarMap, jaw_of_arkit

HEAD, JAW = slice(53, 56), slice(50, 53)
STEP = 40_000_000


def seen(matrix: np.ndarray, **weights: float) -> np.ndarray:
    return FaceFrames().push(0, Face(matrix, weights))


# The camera's frame: x to the right of the picture, y up, z towards the camera. Where nose (z) and crown (y) go says
# the sign.
@pytest.mark.parametrize(
    ("pose", "point", "goes"),
    [
        ([0.3, 0, 0], [0, 0, 1], [0, -np.sin(0.3), np.cos(0.3)]),  # pitch: the nose goes down in the picture
        ([0, 0.3, 0], [0, 0, 1], [np.sin(0.3), 0, np.cos(0.3)]),  # yaw: to the picture's right, the subject's left
        ([0, 0, 0.3], [0, 1, 0], [-np.sin(0.3), np.cos(0.3), 0]),  # roll: the crown to the subject's right
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_angle_does_what_frames_md_says(sign: int, pose: list[float], point: list[float], goes: list[float]) -> None:
    matrix = matrix_of(np.multiply(sign, pose))
    aside = np.array(goes) * np.where(np.array(point) == 0, sign, 1)
    np.testing.assert_allclose(matrix[:3, :3] @ point, aside, atol=1e-9)
    np.testing.assert_allclose(seen(matrix)[HEAD], np.multiply(sign, pose), atol=1e-6)


@given(st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3), st.floats(0.1, 30.0))
def test_every_rotation_comes_back_whatever_the_scale_and_place(pose: list[float], scale: float) -> None:
    matrix = matrix_of(pose)
    matrix[:3, :3] *= scale
    matrix[:3, 3] = [3.0, -20.0, -70.0]
    found = Rotation.from_rotvec(seen(matrix)[HEAD])
    assert (found.inv() * Rotation.from_rotvec(pose)).magnitude() < 1e-5


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.diag([-1.0, 1, 1, 1]), np.full((4, 4), np.nan), np.eye(2)])
def test_what_is_no_rotation_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="of a face"):
        rotation_of(bad)


def test_only_head_and_jaw_are_known() -> None:
    frame = seen(np.eye(4), jawOpen=0.5, mouthSmileLeft=1.0)
    assert np.isnan(frame[:50]).all()
    np.testing.assert_allclose(frame[50:], [JAW_OPEN / 2, 0, 0, 0, 0, 0], atol=1e-7)


def test_the_neutral_pose_is_taken_off_on_the_bodys_side() -> None:
    camera_tilt, nod = Rotation.from_rotvec([0.3, 0.0, 0.0]), Rotation.from_rotvec([0.1, 0.2, 0.0])
    frames = FaceFrames(neutral=camera_tilt.as_rotvec())
    frame = frames.push(0, Face(matrix_of((camera_tilt * nod).as_rotvec()), {}))
    np.testing.assert_allclose(frame[HEAD], nod.as_rotvec(), atol=1e-6)


def test_the_neutral_pose_is_learned_from_the_first_seconds_and_then_stays() -> None:
    frames = FaceFrames(neutral_seconds=1.0)
    poses = [[0.3 + 0.1 * (-1) ** index, 0.05, 0.0] for index in range(26)]
    assert np.isnan(frames.push(0, None)).all()
    for index, pose in enumerate(poses):
        frames.push(STEP * (index + 5), Face(matrix_of(pose), {}))
    assert frames.learning
    np.testing.assert_allclose(frames.neutral, [0.3, 0.05, 0.0], atol=2e-3)
    pose = (Rotation.from_rotvec([0.3, 0.05, 0.0]) * Rotation.from_rotvec([0.0, 0.5, 0.0])).as_rotvec()
    turned = frames.push(STEP * 200, Face(matrix_of(pose), {}))
    assert not frames.learning
    np.testing.assert_allclose(turned[HEAD], [0.0, 0.5, 0.0], atol=2e-3)
    np.testing.assert_array_equal(frames.push(STEP * 201, Face(matrix_of(pose), {})), turned)


def test_without_a_face_nothing_is_known_and_the_next_face_counts_at_once() -> None:
    frames = FaceFrames()
    assert np.isfinite(frames.push(0, Face(np.eye(4), {}))[50:]).all()
    assert np.isnan(frames.push(STEP, None)).all()
    np.testing.assert_allclose(frames.push(2 * STEP, Face(matrix_of([0, 0.4, 0]), {}))[HEAD], [0, 0.4, 0], atol=1e-6)


def test_times_must_go_on_unless_the_clock_was_set_back() -> None:
    frames = FaceFrames()
    frames.push(10_000_000_000, None)
    assert not frames.is_next(10_000_000_000)
    assert not frames.is_next(9_900_000_000)
    with pytest.raises(ValueError, match="came after"):
        frames.push(9_900_000_000, None)
    assert frames.is_next(1_000_000_000)
    frames.push(1_000_000_000, None)
    assert not frames.is_next(1_000_000_000)


def test_the_rate_is_what_the_camera_gives() -> None:
    frames = FaceFrames()
    assert frames.rate == 25.0
    time = 0
    for index in range(40):
        time += 33_333_333 if index % 10 else 66_666_666  # a picture is lost now and then
        frames.push(time, None)
    assert frames.rate == pytest.approx(30.0, rel=1e-3)


def test_jaw_goes_to_flame_and_back() -> None:
    """ARKit to FLAME by this map, FLAME to ARKit by config/avatar.yaml."""
    avatar = AvatarMap()
    for given_weights in (
        {"jawOpen": 0.0},
        {"jawOpen": 0.37, "jawLeft": 0.2},
        {"jawOpen": 0.9, "jawRight": 0.6},
        {"jawOpen": 1.0},
    ):
        frame = np.zeros((1, 56), np.float32)
        frame[0, JAW] = jaw_of_arkit(given_weights)
        back = dict(zip(avatar.names, avatar.arkit(frame)[0].tolist(), strict=True))
        wanted = dict.fromkeys(avatar.names, 0.0) | given_weights
        assert back == pytest.approx(wanted, abs=1e-6)


def test_what_the_map_cannot_give_is_named() -> None:
    assert len(ARKIT) == len(set(ARKIT)) == 52
    avatar = AvatarMap()
    assert set(avatar.names) == {"jawOpen", "jawLeft", "jawRight"}
    assert set(avatar.absent) == set(ARKIT) - set(avatar.names)
