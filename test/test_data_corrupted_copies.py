"""Corrupted copies: what is touched, how much, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from support.synth_factory import person, write_pair

from timar_ros.cli.main import main
from timar_ros.data.corrupted_copies import corrupt
from timar_ros.data.data_check import check_folder
from timar_ros.data.disturbances import KINDS, Corruption
from timar_ros.data.dualtalk_folder import DualTalkFolder, Item, load_motion, load_truth
from timar_ros.errors import UserError
from timar_ros.evaluation.bench.scoring import Task, score

TOUCHED = {
    "noise": {"user_speech", "agent_speech"},
    "silence": {"user_speech", "agent_speech"},
    "drop_motion": {"user_motion"},
    "hold_motion": {"user_motion"},
    "gaussian": {"user_motion"},
    "laplace": {"user_motion"},
    "uniform": {"user_motion"},
    "shift": {"user_speech", "user_motion"},
}


@pytest.fixture
def item():
    (user, user_motion), (agent, agent_motion) = person(1, 1000), person(2, 1000)
    return Item(user_speech=user, agent_speech=agent, user_motion=user_motion, agent_motion=agent_motion)


@pytest.mark.parametrize("kind", KINDS)
def test_only_inputs_are_touched_and_the_seed_decides(item, kind):
    before = {name: array.copy() for name, array in item.items()}
    chosen = Corruption.parse(kind)
    made = corrupt(item, chosen, np.random.default_rng(1))
    changed = {name for name in item if not np.array_equal(made[name], item[name], equal_nan=True)}
    assert changed == TOUCHED[kind]
    for name in item:
        np.testing.assert_array_equal(item[name], before[name])
        assert made[name].shape == item[name].shape
        assert made[name].dtype == np.float32
    again = corrupt(item, chosen, np.random.default_rng(1))
    assert all(np.array_equal(made[name], again[name], equal_nan=True) for name in item)


def test_noise_has_the_ratio_asked_for(item):
    made = corrupt(item, Corruption("noise", 6.0), np.random.default_rng(0))
    noise = made["user_speech"] - item["user_speech"]
    on = noise != 0
    assert on.mean() == pytest.approx(0.3, abs=0.01)
    ratio = 10 * np.log10(np.mean(item["user_speech"] ** 2) / np.mean(noise[on] ** 2))
    assert ratio == pytest.approx(6.0, abs=0.2)


def test_shares_are_met_in_bursts(item):
    made = corrupt(item, Corruption("drop_motion", 0.3), np.random.default_rng(0))["user_motion"]
    lost = np.isnan(made).all(axis=1)
    assert lost.mean() == pytest.approx(0.3, abs=1e-3)
    assert not np.isnan(made[~lost]).any()
    # Bursts, not single frames: far fewer edges than lost frames.
    assert np.abs(np.diff(lost.astype(int))).sum() < 0.4 * lost.sum()
    held = corrupt(item, Corruption("hold_motion", 0.3), np.random.default_rng(0))["user_motion"]
    still = (np.diff(held, axis=0) == 0).all(axis=1)
    assert still.mean() == pytest.approx(0.3, abs=0.02)
    assert np.isfinite(held).all()
    cut = corrupt(item, Corruption("silence", 1.0), np.random.default_rng(0))
    assert not cut["user_speech"].any()
    untouched = corrupt(item, Corruption("silence", 0.0), np.random.default_rng(0))
    np.testing.assert_array_equal(untouched["user_speech"], item["user_speech"])


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "uniform"])
def test_motion_noise_has_the_deviation_asked_for(item, kind):
    made = corrupt(item, Corruption(kind, 0.5), np.random.default_rng(0))
    ratio = (made["user_motion"] - item["user_motion"]).std(axis=0) / item["user_motion"].std(axis=0)
    np.testing.assert_allclose(ratio, 0.5, rtol=0.12)


def test_shift_delays_the_user_by_whole_turns(item):
    made = corrupt(item, Corruption("shift", 2.0), np.random.default_rng(0))
    np.testing.assert_array_equal(made["user_speech"][32000:], item["user_speech"][:-32000])
    assert not made["user_speech"][:32000].any()
    np.testing.assert_array_equal(made["user_motion"][50:], item["user_motion"][:-50])
    assert np.isnan(made["user_motion"][:50]).all()


@pytest.mark.parametrize("text", ["nois", "noise=loud", "silence=1.5", "shift=-1"])
def test_bad_kinds_and_strengths_are_told(text):
    with pytest.raises(UserError):
        Corruption.parse(text)


def test_folder_copy_names_the_user_and_keeps_the_truth(tmp_path, capsys):
    for split in ("train", "test"):
        write_pair(tmp_path / "in" / split, "a", 1, 250)
    out = tmp_path / "out"
    assert main(["data", "corrupt", str(tmp_path / "in"), str(out), "gaussian=0.2", "drop_motion=0.2"]) == 0
    assert "2 conversations" in capsys.readouterr().out
    assert not (out / "train").exists()
    data = DualTalkFolder(out, "test", normalise=False)
    clips = data.clips(None)
    assert [(c.pair.name, c.agent) for c in clips] == [("a-1", 2), ("a-2", 2)]
    clean = DualTalkFolder(tmp_path / "in", "test", normalise=False)
    for clip, original in zip(clips, [c for a in (2, 1) for c in clean.clips(None) if c.agent == a], strict=True):
        made, first = data.load(clip), clean.load(original)
        np.testing.assert_array_equal(made["agent_motion"], first["agent_motion"])
        np.testing.assert_allclose(made["user_speech"], first["user_speech"], atol=2 / 32768)
        assert np.isnan(made["user_motion"]).any()
        np.testing.assert_array_equal(load_truth(clip.pair.npz(1)), first["user_motion"])
    # Metrics take the partner's clean motion: the truth scores perfectly.
    np.save(tmp_path / "guess.npy", load_motion(clips[0].pair.npz(2)))
    assert score(Task(tmp_path / "guess.npy", clips[0].pair, 2)).metrics["rpcc_exp"] == 0
    assert not check_folder(out).faults
    assert main(["data", "corrupt", str(tmp_path / "in"), str(out), "shift"]) == 2
    assert "not empty" in capsys.readouterr().err
