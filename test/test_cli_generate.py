"""`timar generate`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timar_ros.cli.main import main
from timar_ros.data.audio_files import write_audio
from timar_ros.data.motion_files import write_motion
from timar_ros.errors import UserError
from timar_ros.streaming import PipelineOptions, generate, resolve_model

pytest.importorskip("torch")


def speech(seconds, seed):
    n = round(seconds * 16000)
    return (0.2 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32).clip(-1, 1)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    user, agent = speech(2.5, 1), speech(2.5, 2)
    write_audio(folder / "user.wav", user)
    write_audio(folder / "agent.wav", agent)
    write_audio(folder / "both.wav", np.stack([user, agent], axis=1))
    write_motion(folder / "user.npz", np.zeros((62, 56), np.float32))
    return folder


def timar(*arguments):
    return main(["generate", "--model", "random-mini", "--quiet", *map(str, arguments)])


def test_two_files_give_motion_in_dualtalks_layout(recording, tmp_path, capsys):
    out = tmp_path / "deep" / "o.npz"
    code = timar(
        "--user", recording / "user.wav", "--agent", recording / "agent.wav",
        "--user-motion", recording / "user.npz", "--out", out,
    )  # fmt: skip
    assert code == 0
    with np.load(out, allow_pickle=False) as made:
        assert made["exp"].shape == (62, 50)
        assert made["pose"].shape == (62, 6)
        assert made["speaking"].shape == (62,)
        assert float(made["rate"]) == 25.0
        assert all(np.isfinite(made[name]).all() for name in made.files)
    said = capsys.readouterr()
    assert "UNTRAINED MODEL" in said.err
    assert "62 frames" in said.out


def test_a_stereo_file_gives_the_same_bytes_as_two_and_again(recording, tmp_path):
    runs = {
        "a.npz": ["--user", recording / "user.wav", "--agent", recording / "agent.wav"],
        "b.npz": ["--conversation", recording / "both.wav"],
        "c.npz": ["--conversation", recording / "both.wav", "--seed", "2"],
    }
    for name, arguments in runs.items():
        assert timar(*arguments, "--out", tmp_path / name) == 0
    made = {name: (tmp_path / name).read_bytes() for name in runs}
    assert made["a.npz"] == made["b.npz"]
    assert made["a.npz"] != made["c.npz"]


def test_sampling_options_reach_the_model(recording, tmp_path):
    plain = ["--conversation", recording / "both.wav"]
    changes = {
        "plain": [],
        "guidance": ["--guidance", "1.5"],
        "temperature": ["--temperature", "0.5"],
        "steps": ["--sampling-steps", "3"],
        "context": ["--context-seconds", "1"],
        "history": ["--no-mask-history-agent"],
        "seams": ["--no-seams"],
        "mode": ["--mode", "anticipatory"],
        "normalising": ["--normalising", "clip"],
    }
    made = {}
    for name, arguments in changes.items():
        assert timar(*plain, *arguments, "--out", tmp_path / "o.npz") == 0
        made[name] = (tmp_path / "o.npz").read_bytes()
    assert len(set(made.values())) == len(made)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no audio: give --user"),
        (["--conversation", "both.wav", "--user", "user.wav"], "not both"),
        (["--conversation", "missing.wav"], "not found"),
        (["--conversation", "user.wav"], "stereo"),
        (["--conversation", "both.wav", "--user-motion", "missing.npz"], "not found"),
        (["--conversation", "both.wav", "--user-motion", "user.wav"], "cannot read"),
        (["--conversation", "both.wav", "--model", "missing"], "no model 'missing'"),
        (["--conversation", "both.wav", "--guidance", "-1"], "guidance"),
        (["--conversation", "both.wav", "--context-seconds", "2.5"], "context_seconds"),
        (["--conversation", "both.wav", "--sampling-steps", "1"], "sampling_steps"),
        (["--conversation", "both.wav", "--device", "abacus"], "device"),
        (["--conversation", "both.wav", "--dtype", "int3"], "dtype"),
        (["--conversation", "both.wav", "--out", "o.csv"], "npz"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_2(recording, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(recording)
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "o.npz")]
    model = [] if "--model" in arguments else ["--model", "random-mini"]
    assert main(["generate", "--quiet", *model, *arguments, *out]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "UNTRAINED" not in line and line.strip()]
    assert len(error) == 1
    assert error[0].startswith("timar generate: error: ")
    assert says in error[0]
    assert not list(tmp_path.iterdir())


def test_resolve_model_by_path_and_name(tmp_path, monkeypatch):
    from timar_ros.model import save_timar
    from timar_ros.streaming import offline

    made = offline.resolve_model("random-mini-3", inference=False)
    assert not made.trained
    made.trained = True
    save_timar(made, tmp_path / "models" / "timar-mini")
    (tmp_path / "models" / "broken").mkdir()
    assert offline.resolve_model(tmp_path / "models" / "timar-mini").trained
    monkeypatch.setattr(offline, "share", lambda *parts: tmp_path.joinpath(*parts))
    assert offline.shipped_models() == ["timar-mini"]
    by_default, by_name = offline.resolve_model(), offline.resolve_model("timar-mini")
    assert by_default.sha256 == by_name.sha256
    assert by_default.trained
    (tmp_path / "models" / "timar-mini" / "config.json").write_text(json.dumps({}))
    with pytest.raises(UserError):
        offline.resolve_model()


def test_a_small_model_gets_one_thread_so_that_bits_agree():
    import torch

    from timar_ros.streaming.offline import resolve_model

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        resolve_model("random-mini")
        assert torch.get_num_threads() == 1
        resolve_model("random-mini", threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_random_models_stand_in_where_none_is_shipped(monkeypatch):
    from timar_ros.streaming import offline

    monkeypatch.setattr(offline, "shipped_models", list)
    made = offline.resolve_model()
    assert not made.trained
    assert made.sha256 == offline.resolve_model("random-mini-0").sha256 != offline.resolve_model("random-mini-1").sha256
    with pytest.raises(UserError, match="random-mini"):
        offline.resolve_model("random-tiny")


def test_the_readmes_example_runs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw audio in, motion out: the block of Python in README.md as it stands there."""
    text = (repository / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(repository)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["motion"].shape == (1000, 56)
    own = generate(resolve_model(), PipelineOptions(seed=0), names["user"], names["agent"])
    np.testing.assert_array_equal(names["motion"], own)
