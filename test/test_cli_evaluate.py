"""`timar evaluate` on data: predictions kept and taken up again, the paper's table, all three outputs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timar_ros.cli.main import main
from timar_ros.data.dualtalk_folder import DualTalkFolder
from timar_ros.evaluation.bench import predictions
from timar_ros.evaluation.bench.paper_table import COLUMNS, Row, as_json, cells, markdown, published
from timar_ros.evaluation.bench.predictions import make_recipe, predict
from timar_ros.model import TimarConfig, create_timar, save_timar


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short conversations in train, test and ood."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split in ("train", "test", "ood"):
        folder = root / split
        folder.mkdir()
        for name in ("a", "b"):
            for speaker in (1, 2):
                soundfile.write(
                    folder / f"{name}_speaker{speaker}.wav", 0.1 * rng.standard_normal(60 * 640), 16000, "PCM_16"
                )
                exp, pose = rng.standard_normal((60, 50)), rng.standard_normal((60, 6))
                np.savez(folder / f"{name}_speaker{speaker}.npz", exp=exp.astype("f4"), pose=pose.astype("f4"))
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A very small model's folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shape = TimarConfig.of_size("mini").to_dict() | {"encoder_depth": 1, "decoder_depth": 0, "head_depth": 1}
    save_timar(create_timar(TimarConfig.from_dict(shape), zero_head=False), folder)
    return str(folder)


def run(*arguments: str | Path) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_table_json_and_markdown(data: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = ["--out", tmp_path / "out", "--json", tmp_path / "t.json", "--markdown", tmp_path / "t.md"]
    code = run(
        "--model",
        model,
        "mean-pose",
        "random-clip",
        "--data",
        data,
        "--split",
        "test,ood",
        "--context-seconds",
        "1,2",
        *outputs,
    )
    assert code == 0
    rows = json.loads((tmp_path / "t.json").read_text())
    ours = [(row["split"], row["label"]) for row in rows if not row["published"]]
    labels = ["tiny n=0", "tiny n=1", "mean-pose", "random-clip"]
    assert ours == [(split, label) for split in ("test", "ood") for label in labels]
    assert sum(row["published"] for row in rows) == 8
    assert all(np.isfinite(value) for row in rows for value in row["metrics"].values())
    assert "TIMAR n=7 (published)" in (tmp_path / "t.md").read_text()
    assert "rSID" in (tmp_path / "t.md").read_text()
    shown = capsys.readouterr().out
    assert "tiny n=1" in shown


def test_predictions_are_taken_up_again_and_can_be_scored_alone(
    data: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(model, data, "test", context_seconds=1.0, normalising="clip", seams=False)
    folder = predict(recipe, tmp_path)
    files = sorted(folder.glob("*.npy"))
    assert [f.name for f in files] == [f"{n}_speaker{s}.npy" for n in "ab" for s in (1, 2)]
    assert np.load(files[0]).shape == (60, 56)
    files[0].unlink()
    made = []
    original = predictions.predict_one
    monkeypatch.setattr(predictions, "predict_one", lambda *a: (made.append(a[2].name), original(*a)))
    predict(recipe, tmp_path)
    assert len(made) == 1
    assert run("--prediction", folder, "--data", data, "--json", tmp_path / "t.json") == 0
    assert json.loads((tmp_path / "t.json").read_text())[-1]["clips"] == 4


def test_processes_share_the_work(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe("mean-pose", data, "test")
    for rank, there in ((0, 2), (1, 4)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        folder = predict(recipe, tmp_path)
        assert len(list(folder.glob("*.npy"))) == there


def test_launched_processes_make_one_table(data: Path, model: str, tmp_path: Path) -> None:
    """Scores wait for the slowest process, and are made and told once."""
    table = tmp_path / "table.json"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "timar_ros.cli.main", "evaluate", "--data", str(data), "--model", "mean-pose", model, "--split", "test",
        "--context-seconds", "2", "--out", str(tmp_path / "out"), "--json", str(table),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("behaviour (*") == 1
    assert [row["clips"] for row in json.loads(table.read_text())[-2:]] == [4, 4]


def test_more_processes_give_the_same(data: Path, model: str, tmp_path: Path) -> None:
    recipe = make_recipe(model, data, "test", context_seconds=2.0, normalising="clip", seams=False)
    one, two = predict(recipe, tmp_path / "one", limit=2), predict(recipe, tmp_path / "two", jobs=2, limit=2)
    for file in one.glob("*.npy"):
        assert np.allclose(np.load(file), np.load(two / file.name), atol=1e-4)


def test_every_conversation_has_noise_of_its_own(data: Path, model: str, tmp_path: Path) -> None:
    copies = tmp_path / "data/test"
    copies.mkdir(parents=True)
    for file in (data / "test").glob("a_*"):
        for name in ("a", "c"):
            shutil.copy(file, copies / file.name.replace("a_", f"{name}_", 1))
    recipe = make_recipe(model, tmp_path / "data", "test", context_seconds=1.0, seed=0)
    made, again = predict(recipe, tmp_path / "one"), predict(recipe, tmp_path / "two", limit=3)
    for file in again.glob("*.npy"):
        np.testing.assert_array_equal(np.load(file), np.load(made / file.name))
    assert not np.allclose(np.load(made / "a_speaker1.npy"), np.load(made / "c_speaker1.npy"), atol=1e-3)


def test_recipes_are_not_mixed(data: Path, model: str) -> None:
    keys = {
        make_recipe(model, data, split, context_seconds=seconds).key
        for split in ("test", "ood")
        for seconds in (1.0, 2.0)
    }
    assert len(keys) == 4


def test_other_sampling_of_the_same_weights_is_another_recipe(data: Path, model: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    described = json.loads((copy / "config.json").read_text())
    described["model"]["head_noise_correlation"] = 1.0
    (copy / "config.json").write_text(json.dumps(described))
    one, other = make_recipe(model, data, "test"), make_recipe(str(copy), data, "test")
    assert one.weights != other.weights
    assert one.weights.split("-")[0] == other.weights.split("-")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--data DIR with --model M"),
        (["--model", "mean-pose", "--prediction", "x"], "--data DIR with --model M"),
        (["--model", "nothing-here"], "no model 'nothing-here'"),
        (["--model", "{model}", "--context-seconds", "three"], "seconds with commas"),
        (["--model", "{model}", "--context-seconds", "10"], "context_seconds"),
        (["--model", "mean-pose", "--split", "dev"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(
    data: Path, model: str, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [a.replace("{model}", model) for a in arguments]
    assert run(*filled, "--out", tmp_path, *(["--data", data] if arguments else [])) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_published_figures_print_as_published() -> None:
    rows = published("test")
    assert cells(rows[0])[:3] == ["14.16", "1.98", "3.63"]
    assert cells(rows[3])[-1] == "2.18"
    assert rows[0].values["fid_jaw"] == pytest.approx(0.00198)
    assert published("train") == []
    assert len(cells(rows[0])) == len(COLUMNS)


def test_missing_metrics_leave_a_cell_empty() -> None:
    row = Row("x", "test", {"fid_exp": 1.234}, 3)
    assert "| x | 3 | 1.23 |  |" in markdown([row])
    assert as_json([row])[0]["metrics"] == {"fid_exp": 1.234}


def test_baselines_predict_every_frame(data: Path, tmp_path: Path) -> None:
    frames = {c.frames for c in DualTalkFolder(data, "test").clips(None)}
    for name in ("mean-pose", "random-clip"):
        folder = predict(make_recipe(name, data, "test"), tmp_path)
        assert {len(np.load(f)) for f in folder.glob("*.npy")} == frames
