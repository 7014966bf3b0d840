"""Turns of fixed shapes: fit for a CUDA graph as far as a processor can tell, and safe where a graph cannot be had."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import random_turn, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from timar_ros.streaming import Conversation, ConversationBatch, engine_static
from timar_ros.streaming.engine import Window
from timar_ros.streaming.engine_cached import CachedEngine
from timar_ros.streaming.engine_static import SWITCH, GraphedCall, StaticTurn, Tensors, graphs_wanted

# What waits for the device, or brings constants from the host: neither can be part of a graph.
FORBIDDEN = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "lift_fresh", "item"}


class Recorder(TorchDispatchMode):
    """Names of the operations that run, and whether one is indexed by a boolean tensor (its size is data)."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("index", "index_put_", "index_put") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        ):
            name = "nonzero"
        self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("guidance", [1.0, 1.7])
def test_a_turn_neither_waits_nor_copies_constants(guidance: float) -> None:
    engine = CachedEngine(tiny_model(partial_motion=True, standardise=True), Window(8), padded=True)
    turn = StaticTurn(engine, 1 if guidance == 1.0 else 2)
    inputs = (
        torch.randn(1, 16000), torch.ones(1, dtype=torch.bool), torch.randn(1, 16000), torch.randn(1, 25, 56),
        torch.zeros(1, dtype=torch.int64), torch.randn(1, 25, 56), torch.randn(5, 1, 25, 56),
        torch.tensor([1.0, guidance]), torch.zeros(1, 0, 3), torch.zeros(1, 0, 3), torch.zeros(1),
    )  # fmt: skip
    with torch.inference_mode():
        turn(*inputs)  # the first call may set constants up; a graph is recorded later
        with Recorder() as recorder:
            turn(*inputs)
    assert len(recorder.names) > 100
    assert FORBIDDEN.isdisjoint(recorder.names)


def test_the_recorder_sees_what_is_forbidden() -> None:
    with Recorder() as recorder:
        x = torch.arange(3)
        x[x > 1].sum().item()
        torch.tensor([1.0])
    assert {"nonzero", "_local_scalar_dense"} <= set(recorder.names)


def test_graphs_are_for_cuda_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert graphs_wanted(torch.device("cuda")) and not graphs_wanted(torch.device("cpu"))
    monkeypatch.setenv(SWITCH, "1")
    assert not graphs_wanted(torch.device("cuda"))
    monkeypatch.setenv(SWITCH, "0")
    assert graphs_wanted(torch.device("cuda"))


def test_a_graph_that_cannot_be_captured_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "Stream", refuse)
    call = GraphedCall(lambda x: (2 * x,))
    with caplog.at_level(logging.WARNING):
        results = [float(call(torch.tensor(value))[0]) for value in (1.0, 2.0)]
    assert results == [2.0, 4.0]
    assert (
        len(caplog.records) == 1 and "no CUDA graph (operation not permitted" in caplog.text and SWITCH in caplog.text
    )


def recorded(function: Callable[..., Tensors], inputs: Tensors) -> tuple[Callable[[], None], Tensors]:
    """What a graph does, on a processor: reads the same inputs and writes the same outputs at every run."""
    outputs = tuple(value.clone() for value in function(*inputs))

    def replay() -> None:
        for fixed in outputs:  # what nobody may look at any more
            fixed.fill_(torch.nan if fixed.is_floating_point() else 0)
        for fixed, value in zip(outputs, function(*inputs), strict=True):
            fixed.copy_(value)

    return replay, outputs


@pytest.mark.parametrize("masked", [True, False])
def test_replayed_turns_equal_the_oracle_whatever_the_style(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very code of a GPU's turn, but for the recording itself: buffers that are used again, and changing styles."""
    monkeypatch.setattr(engine_static, "graphs_wanted", lambda _: True)
    monkeypatch.setattr(engine_static, "cuda_graph", recorded)
    model = tiny_model()
    options: dict[str, Any] = {"seed": [1, 2], "context_seconds": 4, "mask_history_agent": masked}
    oracle = ConversationBatch(model, 2, engine="oracle", **options)
    replayed = ConversationBatch(model, 2, **options)
    assert isinstance(replayed.engine, CachedEngine)
    replayed.engine.padded = True
    styles = [(1.0, 1.0), (1.7, 1.0), (1.0, 0.4), (2.5, 0.4), (1.0, 1.0)]
    for number, (guidance, temperature) in enumerate(itertools.chain(styles, styles)):
        for batch in (oracle, replayed):
            batch.options = dataclasses.replace(batch.options, guidance=guidance, temperature=temperature)
        turns = [random_turn(2 * number, "some"), random_turn(2 * number + 1) if number % 3 else None]
        if number % 4 == 2:
            got, expected = replayed.plan(turns), oracle.plan(turns)
            replayed.observe(turns)
            oracle.observe(turns)
        else:
            got, expected = replayed.step(turns), oracle.step(turns)
        for row, turn in enumerate(turns):
            if turn is not None:
                np.testing.assert_allclose(got[row], expected[row], rtol=0, atol=1e-4)
                np.testing.assert_allclose(replayed.conditioning(row), oracle.conditioning(row), rtol=0, atol=1e-4)
        if number % 2:
            replayed.prepare()
    runs = [turn._run for turn in replayed._static.values()]
    assert len(runs) == 2 and all(isinstance(run, GraphedCall) and run.replay is not None for run in runs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("guidance", [1.0, 1.7])
def test_graphs_equal_the_oracle_on_cuda(guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    oracle = Conversation(tiny_model(), seed=0, engine="oracle", guidance=guidance, context_seconds=4)
    graphed = Conversation(tiny_model().cuda(), seed=0, guidance=guidance, context_seconds=4)
    for seed in range(8):
        turn = random_turn(seed, "some")
        expected = oracle.step(turn.user_speech, turn.agent_speech, turn.user_motion)
        np.testing.assert_allclose(
            graphed.step(turn.user_speech, turn.agent_speech, turn.user_motion), expected, atol=1e-3
        )
        graphed.prepare()
    [made] = graphed.batch._static.values()
    assert isinstance(made._run, GraphedCall) and made._run.replay is not None
