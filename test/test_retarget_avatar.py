"""FLAME motion as weights of other face models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from timar_ros.errors import UserError
from timar_ros.retarget.avatar import HEAD_NOD, AvatarMap, HeadGestures


def frames(count: int = 100) -> np.ndarray:
    return np.zeros((count, 56), np.float32)


def test_jaw_opens_mouth_everywhere() -> None:
    motion = frames(3)
    motion[:, 50] = [0.0, 0.2, 2.0]
    avatar = AvatarMap()
    opened = avatar.arkit(motion)[:, avatar.names.index("jawOpen")]
    np.testing.assert_allclose(opened, [0.0, 0.44, 1.0], atol=1e-6)
    np.testing.assert_array_equal(avatar.mouth(motion), opened)
    np.testing.assert_allclose(avatar.facs(motion)[:, 26], opened)


def test_turning_left_and_right_are_different_units() -> None:
    motion = frames(2)
    motion[:, 54] = [0.4, -0.4]
    units = AvatarMap().facs(motion)
    assert units[0, 51] > 0.5
    assert units[0, 52] == 0
    assert units[1, 52] > 0.5
    assert units[1, 51] == 0


def test_a_nod_is_no_shake_and_a_pose_is_neither() -> None:
    time = np.arange(100) / 25
    nodding = frames()
    nodding[:, 53] = 0.12 * np.sin(2 * np.pi * 2.0 * time)
    found = HeadGestures(25.0).push(nodding)
    assert found[50:, 0].min() > 0.5
    assert found[:, 1].max() < 0.01
    still = frames()
    still[:, 53] = 0.5
    assert HeadGestures(25.0).push(still).max() < 0.01


def test_gestures_do_not_depend_on_how_the_stream_is_cut() -> None:
    motion = frames()
    motion[:, 53:55] = np.random.default_rng(0).normal(0, 0.1, (100, 2)).cumsum(0)
    whole = HeadGestures(25.0).push(motion)
    cut = HeadGestures(25.0)
    np.testing.assert_allclose(np.concatenate([cut.push(motion[:37]), cut.push(motion[37:])]), whole, atol=1e-6)
    assert HEAD_NOD == 85


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arkit: {jawOpen: {exp50: 1}}\nfacs: {26: {jaw_x: 1}}\nmouth: {jaw_x: 1}", "exp50"),
        ("arkit: {jawOpen: 3}\nfacs: {26: {jaw_x: 1}}\nmouth: {jaw_x: 1}", "jawOpen"),
        ("arkit: {jawOpen: {jaw_x: 1}}\nfacs: {126: {jaw_x: 1}}\nmouth: {jaw_x: 1}", "126"),
        ("arkit: {}", "must have"),
        (": : :", "cannot read avatar map"),
        ("arkit: {a: {exp0: 1" + "0" * 400 + "}}\nfacs: {26: {exp0: 1}}\nmouth: {exp0: 1}", "factors are numbers"),
    ],
)
def test_wrong_files_are_told(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "map.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        AvatarMap(file)
