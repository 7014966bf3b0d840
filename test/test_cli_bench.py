"""`timar bench`: its table, its file, its exit codes; and a long conversation in simulated time."""

from __future__ import annotations

import dataclasses
import json
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_models import random_turn, tiny_model

from timar_ros.cli.main import main
from timar_ros.errors import UserError
from timar_ros.evaluation.bench.benchmark import benchmark, floor
from timar_ros.model import TimarConfig, create_timar, save_timar
from timar_ros.streaming import Conversation

FIELDS = {
    "size", "dtype", "device", "policy", "conversations", "max_abs_error", "oracle_p50_s", "critical_p50_s",
    "critical_p95_s", "critical_p99_s", "idle_p50_s", "speedup", "real_time_factor", "peak_memory_mb",
}  # fmt: skip


def test_rows_have_the_promised_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_timar(tiny_model(), tmp_path / "tiny")
    out = tmp_path / "bench.json"
    code = main(
        ["bench", "--model", str(tmp_path / "tiny"), "--context-policy", "sliding", "stepped", "--json", str(out)]
    )
    assert code == 0
    rows = json.loads(out.read_text())
    assert [row["policy"] for row in rows] == ["sliding", "stepped"]
    for row in rows:
        assert set(row) >= FIELDS
        assert row["size"] == "tiny" and row["dtype"] == "float32" and row["turns"] == 12
        assert row["max_abs_error"] <= 1e-4
        assert 0 < row["critical_p50_s"] <= row["critical_p95_s"] <= row["critical_p99_s"] <= row["critical_max_s"]
        assert row["speedup"] == pytest.approx(row["oracle_p50_s"] / row["critical_p50_s"])
    assert "tiny fp32 sliding x1" in capsys.readouterr().out


def test_hops_are_measured_and_held_against_five_conversations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_timar(tiny_model(), tmp_path / "tiny")
    out = tmp_path / "bench.json"
    given = ["--model", str(tmp_path / "tiny"), "--mode", "rolling", "--conversations", "1", "2", "--json", str(out)]
    assert main(["bench", *given]) == 0
    rows = json.loads(out.read_text())
    assert [(row["policy"], row["conversations"], row["hop"]) for row in rows] == [
        ("stepped", 1, 0.2),
        ("stepped", 2, 0.2),
    ]
    for row in rows:
        assert row["max_abs_error"] <= 1e-4
        assert 0 < row["ahead_p50_s"] <= row["ahead_p95_s"] and 0 < row["late_p50_s"] <= row["late_p95_s"]
        assert row["real_time_factor"] > row["ahead_p50_s"] / 1.5
    assert "tiny fp32 stepped x2" in capsys.readouterr().out
    assert main(["bench", *given, "--hop", "0.12"]) == 2
    assert "must divide" in capsys.readouterr().err


def test_an_engine_that_is_not_the_oracles_equal_fails() -> None:
    model = tiny_model()
    row = benchmark(model, "tiny", dtype="bfloat16", conversations=2)
    assert row.exact and 1e-4 < row.relative_error_z < 0.1  # bf16 states its error
    assert row.conversations == 2 and row.oracle_p50_s > 0
    assert not dataclasses.replace(row, dtype="float32").exact


def test_bad_input_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--turns", "3"]) == 2
    assert main(["bench", "--conversations", "0"]) == 2
    assert main(["bench", "--threads", "0"]) == 2
    assert main(["bench", "--model", "/nowhere"]) == 2
    assert main(["bench", "--size", "mini", "--model", "timar-mini"]) == 2
    assert capsys.readouterr().err.count("\n") == 5
    with pytest.raises(UserError, match="not causal"):
        benchmark(tiny_model(causal=False), "tiny")


@pytest.mark.parametrize(
    ("given", "measured"),
    [([], "timar-mini"), (["--size", "large"], "random-large"), (["--model", "timar-mini-frame"], "timar-mini-frame")],
)
def test_the_default_model_is_measured_unless_another_is_named(
    given: list[str], measured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []

    def note(name: str, **_: object) -> None:
        named.append(name)
        raise UserError("enough")

    monkeypatch.setattr("timar_ros.streaming.offline.resolve_model", note)
    assert main(["bench", *given]) == 2
    assert named == [measured]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timar_ros.streaming.offline.resolve_model", lambda *_: pytest.fail("a model was built first"))
    assert main(["bench", "--size", "large", "--device", "cuda"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no CUDA device" in said


def test_floor_counts_weights_and_tokens() -> None:
    model = create_timar(TimarConfig.of_size("mini"))
    flop, read = floor(model, 1)
    assert read > 4 * sum(p.numel() for p in model.parameters())
    assert flop > 2 * 110 * sum(p.numel() for p in model.encoder_blocks.parameters())
    double, _ = floor(model, 2)
    assert double == pytest.approx(2 * flop)


LONG = 1200


@pytest.mark.slow
def test_a_long_conversation() -> None:
    """1200 turns, four hundred windows: memory flat after the warm-up, turns no slower than a young conversation's."""
    model = tiny_model(encoder_depth=1)
    old, young = (Conversation(model, seed=0, context_seconds=3) for _ in range(2))
    turns = [random_turn(seed) for seed in range(8)]

    def seconds(talk: Conversation) -> float:
        turn = turns[talk.turn % len(turns)]
        start = time.thread_time()
        motion = talk.step(turn.user_speech, turn.agent_speech, turn.user_motion)
        talk.prepare()
        assert np.isfinite(motion).all()
        return time.thread_time() - start

    for _ in range(120):
        seconds(old)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(LONG - 120 - 60):
        seconds(old)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss <= 1.02 * memory
    for _ in range(60):
        seconds(young)
    # In turn, so that both meet the same machine; the faster half of each leaves out what others do to it.
    last, second = np.sort([(seconds(old), seconds(young)) for _ in range(60)], axis=0)[:30].mean(axis=0)
    # What grows with the conversation is by now hundreds of times as large.
    assert last <= 1.5 * second, f"{1e3 * second:.2f} ms a turn when young, {1e3 * last:.2f} ms at the end"
    assert old.turn == LONG
