"""Metrics against golden values, definitions and known cases; scoring of folders in parallel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm
from support.synth_factory import person, write_pair

from timar_ros.data.dualtalk_folder import DualTalkFolder, load_motion
from timar_ros.data.motion_files import write_motion
from timar_ros.errors import UserError
from timar_ros.evaluation.bench.scoring import find_predictions, score_all
from timar_ros.evaluation.metrics.paper_metrics import METRICS, compute_metrics, frechet_distance, mean_metrics

GOLDEN = Path(__file__).parent / "golden"
INPUTS = ("prediction", "exp", "pose", "partner_exp", "partner_pose")


def compare(arrays, prefix, expected):
    found = compute_metrics(*(arrays[prefix + name] for name in INPUTS))
    assert set(found) == set(expected) == set(METRICS)
    for name, value in expected.items():
        tolerance = 1e-5 if name.startswith("sts") else 1e-6
        assert found[name] == pytest.approx(value, rel=tolerance), name


def test_golden_clips():
    expected = json.loads((GOLDEN / "metrics.json").read_text())
    assert len(expected) == 3
    with np.load(GOLDEN / "metrics.npz") as arrays:
        for index, values in enumerate(expected):
            compare(arrays, f"{index}/", values)


def clip(seed=1, frames=200):
    motion = person(seed, frames)[1]
    return motion, motion[:, :50], np.concatenate([motion[:, 53:], motion[:, 50:53]], axis=1)


def test_a_perfect_prediction_is_perfect():
    motion, exp, pose = clip()
    _, partner_exp, partner_pose = clip(2)
    found = compute_metrics(motion, exp, pose, partner_exp, partner_pose)
    for name in METRICS:
        if name.startswith(("mse", "sts", "rpcc")):
            assert found[name] == pytest.approx(0, abs=1e-12), name
        if name.startswith(("fid", "p_fid")):
            assert found[name] == pytest.approx(0, abs=1e-5), name
        if name.startswith("sid"):
            assert found[name] == found["reverse_" + name], name


def test_jaw_and_head_are_not_confused():
    motion, exp, pose = clip()
    off = motion.copy()
    off[:, 53:] += 0.5
    found = compute_metrics(off, exp, pose, exp, pose)
    assert found["mse_pose"] == pytest.approx(0.25, rel=1e-5)
    assert found["mse_jaw"] == 0
    assert found["fid_pose"] == pytest.approx(3 * 0.25, rel=1e-3)
    assert found["fid_jaw"] == pytest.approx(0, abs=1e-6)


def test_truth_is_cropped_to_the_prediction():
    motion, exp, pose = clip()
    assert compute_metrics(motion[:120], exp, pose, exp, pose) == compute_metrics(
        motion[:120], exp[:120], pose[:120], exp[:120], pose[:120]
    )


def test_frechet_distance_agrees_with_the_matrix_root():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((80, 6)) @ rng.standard_normal((6, 6)), rng.standard_normal((90, 6))
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_a_still_prediction_is_scored_without_complaint(recwarn):
    _, exp, pose = clip()
    still = np.zeros((200, 56), np.float32)
    found = compute_metrics(still, exp, pose, exp, pose)
    assert all(np.isfinite(v) for v in found.values())
    assert found["sid_exp"] == pytest.approx(0, abs=1e-4)
    assert found["variance_pre_exp"] == 0
    assert not recwarn.list


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:, :55], r"\[T,56\]"),
        (lambda m: m[:30], "at least 40"),
        (lambda m: np.where(m == m[5, 5], np.nan, m), "not finite"),
        (lambda m: np.concatenate([m, m]), "400 or more"),
    ],
)
def test_bad_input_is_told(change, message):
    motion, exp, pose = clip()
    with pytest.raises(UserError, match=message):
        compute_metrics(change(motion), exp, pose, exp, pose)


@pytest.fixture
def scored(tmp_path):
    for index in range(3):
        write_pair(tmp_path / "data" / "test", f"c{index}", index, 250)
    (tmp_path / "out").mkdir()
    for index in range(3):
        truth = load_motion(tmp_path / "data" / "test" / f"c{index}_speaker2.npz")
        guess = truth + np.float32(0.01 * index)
        if index == 1:
            np.save(tmp_path / "out" / f"c{index}_speaker2.npy", guess)
        else:
            write_motion(tmp_path / "out" / f"c{index}_speaker2.npz", guess)
    return tmp_path


def test_folder_of_predictions_same_on_one_and_two_processes(scored):
    data = DualTalkFolder(scored / "data", "test")
    (scored / "out" / "other.npz").write_bytes(b"")
    tasks, strangers = find_predictions(scored / "out", data)
    assert len(strangers) == 1
    assert "other.npz" in strangers[0]
    ticks = []
    one = score_all(tasks, 1, lambda done, total: ticks.append((done, total)))
    assert score_all(tasks, 2) == one
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert [s.name for s in one] == ["c0_speaker2", "c1_speaker2", "c2_speaker2"]
    for index, score in enumerate(one):
        assert score.metrics["mse_exp"] == pytest.approx((0.01 * index) ** 2, rel=1e-2, abs=1e-12)
    assert mean_metrics([s.metrics for s in one])["mse_jaw"] == pytest.approx(1e-4 * (0 + 1 + 4) / 3, rel=1e-2)


def test_bad_predictions_are_named(scored):
    data = DualTalkFolder(scored / "data", "test")
    np.save(scored / "out" / "c1_speaker2.npy", np.zeros((20, 56), np.float32))
    with pytest.raises(UserError, match="c1_speaker2"):
        score_all(find_predictions(scored / "out", data)[0])
    with pytest.raises(UserError, match="no such folder"):
        find_predictions(scored / "nowhere", data)
    (scored / "empty").mkdir()
    with pytest.raises(UserError, match="X_speaker1"):
        find_predictions(scored / "empty", data)


def test_mean_of_nothing_is_an_error():
    with pytest.raises(UserError, match="no clip"):
        mean_metrics([])
