"""Frames of other models: which column goes where, and that they are scored as predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.synth_factory import write_pair

from timar_ros.cli.main import main
from timar_ros.data.motion_files import load_motion
from timar_ros.errors import UserError


def test_columns_of_artalk_and_unils(tmp_path: Path) -> None:
    # Powers of two keep the numbers exact, and so small that they can be angles [rad].
    artalk = np.arange(2 * 106, dtype=np.float32).reshape(2, 106) / 128
    torch.save(torch.from_numpy(artalk), tmp_path / "a_motions.pt")
    frames, rate = load_motion(tmp_path / "a_motions.pt")
    assert rate == 25.0
    np.testing.assert_array_equal(128 * frames[0], [*range(50), 103, 104, 105, 100, 101, 102])
    unils = np.arange(108, dtype=np.float32)[None] / 128
    np.save(tmp_path / "u.npy", unils)
    np.testing.assert_array_equal(128 * load_motion(tmp_path / "u.npy")[0][0], [*range(50), 103, 0, 0, 100, 101, 102])


def test_other_contents_are_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 57)))
    with pytest.raises(UserError, match=r"\(3, 57\); expected .*ARTalk"):
        load_motion(tmp_path / "x.npy")
    (tmp_path / "x.pt").write_bytes(b"no tensor")
    with pytest.raises(UserError, match="not a file of one tensor"):
        load_motion(tmp_path / "x.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "y.pt")
    with pytest.raises(UserError, match="not a file of one tensor"):
        load_motion(tmp_path / "y.pt")


def test_a_rivals_files_are_scored(tmp_path: Path) -> None:
    write_pair(tmp_path / "data" / "test", "c", 1, frames=100)
    (tmp_path / "rival").mkdir()
    torch.save(torch.randn(100, 106, generator=torch.Generator().manual_seed(0)), tmp_path / "rival" / "c_speaker2.pt")
    table = tmp_path / "t.md"
    command = ["evaluate", "--prediction", tmp_path / "rival", "--data", tmp_path / "data", "--markdown", table]
    assert main([str(part) for part in command]) == 0
    assert "| rival | 1 |" in table.read_text()
