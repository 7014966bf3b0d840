"""Motion files."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from timar_ros import motion as frame
from timar_ros.data.motion_files import join, load_motion, read_motion, resample_motion, split, write_motion
from timar_ros.errors import UserError


def test_a_frame_and_the_rates_are_what_the_paper_says() -> None:
    assert (frame.MODEL_RATE, frame.MOTION_RATE, frame.SAMPLES_PER_FRAME, frame.MOTION_SIZE) == (16000, 25.0, 640, 56)
    columns = [column for part in frame.PARTS.values() for column in range(56)[part]]
    assert columns == list(range(56))
    assert [len(range(56)[part]) for part in (frame.EXPRESSION, frame.JAW, frame.HEAD)] == [frame.EXPRESSION_SIZE, 3, 3]
    assert (frame.JAW_OPENING, frame.PITCH, frame.YAW, frame.ROLL) == (50, 53, 54, 55)


def frames(count, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal((count, 56))).astype(np.float32)


def test_round_trip_and_layout(tmp_path):
    motion = frames(30)
    write_motion(tmp_path / "a.npz", motion, speaking=np.ones(30, np.uint8))
    np.testing.assert_array_equal(read_motion(tmp_path / "a.npz"), motion)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["exp"], motion[:, :50])
        np.testing.assert_array_equal(file["pose"][:, :3], motion[:, 53:])  # the head first
        np.testing.assert_array_equal(file["pose"][:, 3:], motion[:, 50:53])
        assert float(file["rate"]) == 25.0
        assert file["speaking"].sum() == 30


def test_split_and_join():
    motion = frames(3)
    expression, jaw, head = split(motion)
    assert (expression.shape, jaw.shape, head.shape) == ((3, 50), (3, 3), (3, 3))
    np.testing.assert_array_equal(join(expression, jaw, head), motion)


def test_the_same_motion_gives_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        write_motion(tmp_path / name, frames(5))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_npy_is_in_our_order(tmp_path):
    np.save(tmp_path / "a.npy", frames(10))
    np.testing.assert_array_equal(read_motion(tmp_path / "a.npy"), frames(10))


@pytest.mark.parametrize("rate", [12.5, 30.0, 50.0, 60.0])
def test_other_rates_keep_the_time(tmp_path, rate):
    t = np.arange(round(4 * rate))[:, None] / rate
    motion = np.zeros((len(t), 56), np.float32)
    motion[:, :50] = np.sin(t * np.linspace(0.2, 3, 50))
    motion[:, 53:54] = 0.4 * np.sin(2 * t)
    write_motion(tmp_path / "a.npz", motion, rate)
    made = read_motion(tmp_path / "a.npz")
    assert made.shape == (100, 56)
    want = np.sin(np.arange(100)[:, None] / 25 * np.linspace(0.2, 3, 50))
    assert np.abs(made[:-2, :50] - want[:-2]).max() < 0.01
    assert load_motion(tmp_path / "a.npz")[1] == rate


def test_rotations_go_along_the_shortest_arc():
    motion = np.zeros((2, 56), np.float32)
    motion[0, 53:], motion[1, 53:] = [0.0, 2.9, 0.0], [0.0, -2.9, 0.0]  # 0.48 rad apart by way of pi
    middle = resample_motion(motion, 25.0, 50.0)[1, 53:]
    assert Rotation.from_rotvec(middle).magnitude() == pytest.approx(np.pi, abs=1e-3)


def test_untracked_stays_untracked_when_resampled():
    motion = frames(100)
    motion[40:70, 53:] = np.nan
    made = resample_motion(motion, 25.0, 50.0)
    assert np.isnan(made[84:136, 53:]).all()
    assert np.isfinite(made[:, :53]).all()


def bad(path, what):
    if what == "pickle":
        np.savez(path, exp=np.array([object()]), pose=np.zeros((1, 6)))
    elif what == "no pose":
        np.savez(path, exp=np.zeros((3, 50)))
    elif what == "lengths":
        np.savez(path, exp=np.zeros((3, 50)), pose=np.zeros((4, 6)))
    elif what == "columns":
        np.savez(path, exp=np.zeros((3, 40)), pose=np.zeros((3, 6)))
    elif what == "empty":
        np.savez(path, exp=np.zeros((0, 50)), pose=np.zeros((0, 6)))
    elif what == "infinite":
        np.savez(path, exp=np.full((3, 50), np.inf), pose=np.zeros((3, 6)))
    elif what == "rate":
        np.savez(path, exp=np.zeros((3, 50)), pose=np.zeros((3, 6)), rate=0.0)
    elif what == "text":
        path.write_text("no archive")
    elif what == "cut":
        np.savez(path, exp=np.zeros((300, 50)), pose=np.zeros((300, 6)))
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", "not found"),
        ("pickle", "cannot read"),
        ("no pose", "no array pose"),
        ("lengths", "same T"),
        ("columns", "expected"),
        ("empty", "no frames"),
        ("infinite", "infinite"),
        ("rate", "rate"),
        ("text", "cannot read"),
        ("cut", "cannot read"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, what, says):
    path = tmp_path / "a.npz"
    bad(path, what)
    with pytest.raises(UserError, match=says) as error:
        read_motion(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_npy(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 55)))
    with pytest.raises(UserError, match="expected numbers"):
        read_motion(tmp_path / "a.npy")


def test_write_needs_npz(tmp_path):
    with pytest.raises(UserError, match=r"\.npz"):
        write_motion(tmp_path / "a.csv", frames(2))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_motion(tmp_path / "a.npz", frames(5))
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(TypeError):
        write_motion(tmp_path / "a.npz", frames(6), file=np.zeros(1))  # np.savez takes no array of that name
    assert (tmp_path / "a.npz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
