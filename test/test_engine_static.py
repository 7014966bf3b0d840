"""Turns of fixed shapes: fit for a CUDA graph as far as a processor can tell, and safe where a graph cannot be had."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import random_turn, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from timar_ros.streaming import Conversation
from timar_ros.streaming.engine import Window
from timar_ros.streaming.engine_cached import CachedEngine
from timar_ros.streaming.engine_static import SWITCH, GraphedCall, StaticTurn, graphs_wanted

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
    turn = StaticTurn(engine, guidance, 1.0)
    inputs = (
        torch.randn(1, 16000), torch.ones(1, dtype=torch.bool), torch.randn(1, 16000), torch.randn(1, 25, 56),
        torch.zeros(1, dtype=torch.int64), torch.randn(1, 25, 56), torch.randn(5, 1, 25, 56),
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
    assert isinstance(made._run, GraphedCall) and made._run.graph is not None
