"""The user's own face model: skinning against a naive loop, files of the format, and pickles that hold more."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_matrix
from scipy.spatial.transform import Rotation
from support import bag_factory as factory

from timar_ros.errors import UserError
from timar_ros.evaluation.report.flame_model import film, load_flame

VERTICES = 60


def made_up(seed: int = 0) -> dict[str, Any]:
    """A model of FLAME's format, of the size of a head, that is nobody's face."""
    generator = np.random.default_rng(seed)
    template = generator.normal(size=(VERTICES, 3))
    template *= 0.1 / np.linalg.norm(template, axis=1, keepdims=True)
    weights = generator.dirichlet(np.full(5, 0.3), VERTICES)
    regressor = generator.dirichlet(np.full(VERTICES, 0.5), 5)
    return {
        "v_template": template,
        "shapedirs": 0.002 * generator.normal(size=(VERTICES, 3, 400)),
        "posedirs": 0.01 * generator.normal(size=(VERTICES, 3, 36)),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "f": generator.integers(0, VERTICES, (90, 3)).astype(np.uint32),
    }


def naive(model: dict[str, Any], frame: np.ndarray, *, turned: bool) -> np.ndarray:
    """One frame by the book: a 4x4 transform a joint, one vertex at a time."""
    shaped = model["v_template"] + model["shapedirs"][:, :, 300:350] @ frame[:50].astype(np.float64)
    joints = model["J_regressor"] @ shaped
    turns = [np.eye(3) for _ in range(5)]
    turns[2] = Rotation.from_rotvec(frame[50:53]).as_matrix()
    if turned:
        turns[0] = Rotation.from_rotvec(frame[53:56]).as_matrix()
    feature = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    posed = shaped + model["posedirs"] @ feature
    world: list[np.ndarray] = []
    for joint, parent in enumerate((-1, 0, 1, 1, 1)):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    out = np.zeros((VERTICES, 3))
    for vertex in range(VERTICES):
        for joint in range(5):
            moved = world[joint].copy()
            moved[:3, 3] -= moved[:3, :3] @ joints[joint]
            out[vertex] += model["weights"][vertex, joint] * (moved @ np.append(posed[vertex], 1.0))[:3]
    return out


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "face.npz", **made_up())
    return tmp_path / "face.npz"


@pytest.mark.parametrize("turned", [False, True])
def test_skinning_is_that_of_the_book(model_file: Path, turned: bool) -> None:
    frames = factory.motion(2.0, "agent")
    found = load_flame(model_file).vertices(frames, turned=turned)
    for index in (0, 17, 49):
        expected = naive(made_up(), frames[index], turned=turned)
        np.testing.assert_allclose(found[index], expected, atol=1e-6)


def test_rest_is_the_template(model_file: Path) -> None:
    found = load_flame(model_file).vertices(np.zeros((1, 56), np.float32), turned=True)
    np.testing.assert_allclose(found[0], made_up()["v_template"], atol=1e-7)


def test_a_film_is_near_the_vertices_and_knows_how_near(model_file: Path) -> None:
    model = load_flame(model_file)
    frames = factory.motion(8.0, "agent")
    made = film(model, frames, most=60)
    shown = made.mean + (made.weights @ made.basis.T).reshape(len(frames), VERTICES, 3)
    error = np.abs(shown - model.vertices(frames)).max()
    assert error < 1e-3  # a millimetre
    assert error <= made.error * 1.01 + 1e-7
    small = film(model, frames, most=3)
    assert small.weights.shape == (len(frames), 3)
    assert small.error > made.error


def test_a_pickle_of_arrays_is_read(tmp_path: Path, model_file: Path) -> None:
    content = made_up()
    content["J_regressor"] = csc_matrix(content["J_regressor"])
    content["bs_style"] = "lbs"
    (tmp_path / "face.pkl").write_bytes(pickle.dumps(content, protocol=2))
    frames = factory.motion(1.0, "agent")
    np.testing.assert_array_equal(
        load_flame(tmp_path / "face.pkl").vertices(frames), load_flame(model_file).vertices(frames)
    )


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/timar_test_was_here",)


def test_a_pickle_that_would_run_something_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({**made_up(), "more": Evil()}))
    with pytest.raises(UserError, match="which no face model needs"):
        load_flame(tmp_path / "evil.pkl")
    assert not Path("/tmp/timar_test_was_here").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"posedirs": np.zeros((VERTICES, 3, 9))}, "posedirs has shape"),
        ({"shapedirs": np.zeros((VERTICES, 3, 100))}, "shapedirs has shape"),
        ({"f": np.full((3, 3), VERTICES)}, "no list of triangles"),
        ({"weights": None}, "it lacks weights"),
    ],
)
def test_what_is_no_face_model(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    content = {key: value for key, value in {**made_up(), **change}.items() if value is not None}
    np.savez(tmp_path / "face.npz", **content)
    with pytest.raises(UserError, match=said):
        load_flame(tmp_path / "face.npz")


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "face.npz").write_bytes(b"junk")
    (tmp_path / "face.pkl").write_bytes(b"junk")
    for name in ("face.npz", "face.pkl", "face.obj", "nowhere.npz"):
        with pytest.raises(UserError):
            load_flame(tmp_path / name)
