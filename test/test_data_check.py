"""Every fault of a data set is found and named; a whole one has none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from support.synth_factory import person, write_pair

from timar_ros.cli.main import main
from timar_ros.data.data_check import check_folder
from timar_ros.data.motion_files import write_motion
from timar_ros.errors import UserError

SPEECH, MOTION = person(11, 250)


def spoil_value(frame, column, value):
    def spoil(folder):
        motion = MOTION.copy()
        motion[frame, column] = value
        write_motion(folder / "a_speaker1.npz", motion)

    return spoil


FAULTS = {
    "missing": (lambda d: (d / "a_speaker1.npz").unlink(), "a", "missing a_speaker1.npz"),
    "longer": (
        lambda d: soundfile.write(d / "a_speaker1.wav", np.concatenate([SPEECH, SPEECH[: 3 * 640]]), 16000),
        "a_speaker1.wav",
        "3.0 more than",
    ),
    "shorter": (
        lambda d: write_motion(d / "a_speaker1.npz", MOTION[:200]),
        "a_speaker2.npz",
        "50.0 more than a_speaker1.npz",
    ),
    "nan": (spoil_value(7, 3, np.nan), "a_speaker1.npz", "NaN or infinite in 1 of 250 frames, first frame 7"),
    "rate": (lambda d: soundfile.write(d / "a_speaker1.wav", SPEECH, 44100), "a_speaker1.wav", "44100 Hz"),
    "channels": (
        lambda d: soundfile.write(d / "a_speaker1.wav", np.stack([SPEECH] * 2, 1), 16000),
        "a_speaker1.wav",
        "2 channels",
    ),
    "frame rate": (lambda d: write_motion(d / "a_speaker1.npz", MOTION, 30.0), "a_speaker1.npz", "frame rate 30"),
    "silent": (lambda d: soundfile.write(d / "a_speaker1.wav", SPEECH * 1e-4, 16000), "a_speaker1.wav", "silent"),
    "clipped": (
        lambda d: soundfile.write(d / "a_speaker1.wav", np.clip(SPEECH * 50, -1, 1), 16000),
        "a_speaker1.wav",
        "clipped",
    ),
    "expression": (spoil_value(3, 20, -7.5), "a_speaker1.npz", "expression out of FLAME's range"),
    "jaw": (spoil_value(3, 50, 2.0), "a_speaker1.npz", "jaw x out of FLAME's range"),
    "head": (spoil_value(9, 54, 3.0), "a_speaker1.npz", "head y out of FLAME's range [-2.4, 2.4] in 1 of 250 frames"),
    "still": (lambda d: write_motion(d / "a_speaker1.npz", 0 * MOTION), "a_speaker1.npz", "never moves"),
    "text": (lambda d: (d / "a_speaker1.npz").write_text("x"), "a_speaker1.npz", "not a readable npz"),
    "noise": (lambda d: (d / "a_speaker1.wav").write_text("x"), "a_speaker1.wav", "not a readable audio file"),
    "shape": (
        lambda d: np.savez(d / "a_speaker1.npz", exp=MOTION[:, :49], pose=MOTION[:, :6]),
        "a_speaker1.npz",
        "instead of [T,50]",
    ),
    "empty": (lambda d: write_motion(d / "a_speaker1.npz", MOTION[:0]), "a_speaker1.npz", "empty"),
}  # fmt: skip


def test_a_whole_set_has_no_fault(tmp_path, capsys):
    for split in ("train", "test", "ood"):
        write_pair(tmp_path / split, "a", 1)
        write_pair(tmp_path / split, "b", 2)
    report = check_folder(tmp_path)
    assert not report.faults
    assert report.conversations == {"train": 2, "test": 2, "ood": 2}
    assert report.seconds["train"] == pytest.approx(20)
    assert main(["data", "check", str(tmp_path)]) == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_its_file(tmp_path, capsys, fault):
    write_pair(tmp_path / "train", "a", 1)
    write_pair(tmp_path / "train", "b", 2)
    spoil, file, message = FAULTS[fault]
    spoil(tmp_path / "train")
    report = check_folder(tmp_path)
    found = [str(f) for f in report.faults if f.file.name == file and message in f.what]
    assert len(found) == 1, [str(f) for f in report.faults]
    assert report.broken("train") == {"a"}
    # The command prints the line whole and fails.
    assert main(["data", "check", str(tmp_path)]) == 1
    assert found[0] in capsys.readouterr().out


def test_two_frames_of_difference_are_allowed(tmp_path):
    write_pair(tmp_path, "a", 1)
    write_motion(tmp_path / "a_speaker1.npz", MOTION[:248])
    assert not check_folder(tmp_path).faults


def test_all_faults_are_listed_not_only_the_first(tmp_path):
    write_pair(tmp_path, "a", 1)
    soundfile.write(tmp_path / "a_speaker1.wav", np.stack([SPEECH * 1e-4] * 2, 1), 8000)
    motion = MOTION.copy()
    motion[0, 0], motion[1, 1] = np.nan, 9
    write_motion(tmp_path / "a_speaker2.npz", motion, 30.0)
    assert len(check_folder(tmp_path).faults) >= 6


def test_nothing_there_is_told(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="X_speaker1"):
        check_folder(tmp_path)
    with pytest.raises(UserError, match="ood"):
        check_folder(tmp_path, ["ood"])


def test_real_clip_is_within_range(shared):
    faults = check_folder(shared / "data" / "dualtalk_demo").faults
    assert [f.what for f in faults] == ["missing UbjUDM1MiGE_sub_video_72_speaker1.npz"]


def test_stats_of_people_with_and_without_a_tracked_partner(tmp_path, capsys):
    write_pair(tmp_path, "a", 1)
    (tmp_path / "a_speaker2.npz").unlink()
    assert main(["data", "stats", str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())["files"]
    assert found["jaw_mean"]["mean"] == pytest.approx(float(MOTION[:, 50].mean()), abs=1e-6)
    assert found["expression_sd 3"]["mean"] == pytest.approx(float(MOTION[:, 3].std()), rel=1e-5)
    # The bursts are on for half of the time.
    assert 0.4 < found["speaking"]["mean"] < 0.6
    assert "jaw_sd" in capsys.readouterr().out
    assert main(["data", "stats", str(tmp_path / "nowhere")]) == 2


def test_stats_of_the_real_clip_are_those_that_were_measured(shared, tmp_path):
    out = tmp_path / "out.json"
    assert main(["data", "stats", str(shared / "data" / "dualtalk_demo"), "--json", str(out)]) == 0
    found = json.loads(out.read_text())["files"]
    first = [found[f"expression_sd {i}"]["mean"] for i in range(10)]
    np.testing.assert_allclose(first, [1.53, 0.63, 0.33, 0.57, 0.62, 0.62, 0.60, 0.52, 0.40, 0.57], atol=0.006)
    assert found["jaw_sd"]["mean"] == pytest.approx(0.063, abs=0.001)
    np.testing.assert_allclose([found[f"head_sd {i}"]["mean"] for i in range(3)], [0.11, 0.12, 0.06], atol=0.005)
