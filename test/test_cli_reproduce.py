"""`timar reproduce` end to end on small parts: tables, ablations, studies; what is there is taken up again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from support.synth_factory import write_pair
from support.tiny_models import tiny_model

from timar_ros.cli import reproduce
from timar_ros.cli.main import main
from timar_ros.evaluation import reproduction, studies
from timar_ros.evaluation.bench import predictions
from timar_ros.evaluation.bench.paper_table import Row
from timar_ros.model import save_timar


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dualtalk")
    for index, split in enumerate(("train", "test", "ood")):
        for number in range(2):
            write_pair(root / split, f"c{number}", 3 * index + number, frames=200)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_timar(tiny_model(context_seconds=4.0), folder)
    return str(folder)


def run(*arguments: str | Path) -> int:
    return main(["reproduce", *map(str, arguments)])


def test_tables_stand_beside_the_published_ones_and_are_taken_up_again(
    data: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--data", data, "--checkpoint", model, "--out", tmp_path, "--seeds", "2", "--limit", "1")
    assert run(*command) == 0
    text = (tmp_path / "tables.md").read_text()
    rows = json.loads((tmp_path / "tables.json").read_text())
    ours = [(row["split"], row["label"]) for row in rows if not row["published"]]
    labels = ["mean-pose", "random-clip", "tiny n=0", "tiny n=1", "tiny n=3"]
    assert ours == [(split, label) for split in ("test", "ood") for label in labels]
    assert all(row["deviation"]["fid_exp"] > 0 for row in rows if row["label"].startswith("tiny"))
    [line] = [line for line in text.splitlines() if line.startswith("| FD exp | 3 | 9.11 |")]
    assert "±" in line
    assert line.endswith("% |")
    assert "| MLP head | 9.48 | not trained |" in (tmp_path / "ablations.md").read_text()

    monkeypatch.setattr(predictions, "predict_one", lambda *_: pytest.fail("what is there was predicted again"))
    assert run(*command) == 0
    assert (tmp_path / "tables.md").read_text() == text


def test_each_study_gives_a_table_and_a_plot(data: Path, model: str, tmp_path: Path) -> None:
    names = ("history", "noise", "overlap", "latency")
    command = ("--data", data, "--checkpoint", model, "--out", tmp_path, "--split", "test", "--limit", "1")
    assert run(*command, "--study", *names) == 0
    rows = {name: json.loads((tmp_path / "studies" / f"{name}.json").read_text()) for name in names}
    assert [row["position"] for row in rows["history"]] == [1.0, 2.0, 3.0, 4.0]
    assert [row["label"] for row in rows["noise"]] == ["60 dB", "20 dB", "10 dB", "0 dB"]
    assert len({row["metrics"]["fid_exp"] for row in rows["noise"]}) == 4
    assert [row["label"].split()[0] for row in rows["latency"]] == ["rolling", "reactive", "anticipatory"]
    assert sum(row["clips"] for row in rows["overlap"]) == 1
    for name in names:
        assert (tmp_path / "studies" / f"{name}.svg").read_text().count("<circle") >= 6
        assert (tmp_path / "studies" / f"{name}.md").read_text().count("\n") == len(rows[name]) + 2
    assert not (tmp_path / "tables.md").exists()


def test_models_of_other_turns_and_encoders_are_compared(data: Path, model: str, tmp_path: Path) -> None:
    other = tmp_path / "half"
    save_timar(tiny_model(seed=1, turn_seconds=0.4, context_seconds=1.6), other)
    command = ("--data", data, "--checkpoint", model, "--out", tmp_path / "out", "--split", "test", "--limit", "1")
    assert run(*command, "--study", "turn-length", "--models", model, other) == 0
    rows = json.loads((tmp_path / "out" / "studies" / "turn-length.json").read_text())
    assert [row["position"] for row in rows] == [1.0, 0.4]


def test_ablations_are_trained_and_scored(
    data: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training itself has its tests: here a stand-in leaves the model that the command line asks for."""
    trained = []

    def train(command: list[str]) -> int:
        config = yaml.safe_load(Path(command[1]).read_text())
        assert config["model"]["size"] == "large"
        folder, change = Path(command[command.index("--folder") + 1]), command[command.index("--set") + 1]
        field, value = change.removeprefix("model.").split("=")
        trained.append(field)
        save_timar(tiny_model(context_seconds=4.0, **{field: yaml.safe_load(value)}), folder / "model")
        return 0

    command = ("--data", data, "--checkpoint", model, "--out", tmp_path, "--split", "test", "--limit", "1")
    with monkeypatch.context() as patch:
        patch.setattr("timar_ros.cli.main.main", train)
        assert main(["reproduce", *map(str, command), "--ablations"]) == 0
    assert trained == ["diffusion", "causal", "encoder_only"]
    table = (tmp_path / "ablations.md").read_text()
    assert "not trained" not in table
    assert table.count("\n") == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "nowhere: no folder test/"),
        ({"--checkpoint": "nothing.pth"}, "nothing.pth: no such file"),
        ({"--study": "encoder"}, "two or more as --models"),
        ({"--seeds": "0"}, "must be 1 or more"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    given = {"--data": str(data), "--checkpoint": model, "--out": str(tmp_path / "o")} | change
    assert run(*(part for pair in given.items() for part in pair)) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_commands_and_studies_have_the_same_names() -> None:
    assert set(reproduce.STUDIES) == set(studies.NAMES)


def test_a_mean_has_the_spread_of_a_sample() -> None:
    rows = [Row("x", "test", {"fid_exp": value}, 3) for value in (1.0, 3.0)]
    line = reproduction.mean_line("x", "test", rows)
    assert line.row.values["fid_exp"] == 2.0
    assert line.spread["fid_exp"] == pytest.approx(2**0.5)
    assert dataclasses.asdict(line)["row"]["clips"] == 3
