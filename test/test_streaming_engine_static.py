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
from support.tiny_models import random_turn, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from timar_ros.streaming import Conversation, ConversationBatch
from timar_ros.streaming.engine import static
from timar_ros.streaming.engine.cached import CachedEngine
from timar_ros.streaming.engine.full_window import Window
from timar_ros.streaming.engine.static import SWITCH, GraphedCall, StaticTurn, Tensors, graphs_wanted
from timar_ros.streaming.rolling import Hop, RollingBatch

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


@pytest.mark.parametrize("known", [False, True])
def test_nor_does_a_joint_head(known: bool) -> None:
    model = tiny_model(head="joint", joint_width=32, joint_depth=2)
    turn = StaticTurn(CachedEngine(model, Window(8), padded=True), 2)
    inputs = [
        torch.randn(1, 16000), torch.ones(1, dtype=torch.bool), torch.randn(1, 16000), torch.randn(1, 25, 56),
        torch.zeros(1, dtype=torch.int64), torch.randn(1, 25, 56), torch.randn(5, 1, 25, 56), torch.tensor([1.0, 1.7]),
        torch.randn(1, 14, 3), torch.randn(1, 12, 3), torch.zeros(1),
    ]  # fmt: skip
    if known:
        inputs += [torch.randn(1, 25, 3), torch.from_numpy(model.known_gain(3)).unsqueeze(0)]
    with torch.inference_mode():
        turn(*inputs)
        with Recorder() as recorder:
            turn(*inputs)
    assert FORBIDDEN.isdisjoint(recorder.names)


def test_hops_of_a_joint_head_in_fixed_shapes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversations with and without known poses in one batch, speech ahead and not ahead."""
    model = tiny_model(head="joint", joint_width=32, joint_depth=2)
    random = np.random.default_rng(0)
    speech = random.standard_normal((2, 40 * 640 * 5), dtype=np.float32)

    def run() -> list[np.ndarray]:
        batch = RollingBatch(model, 2, hop_frames=5, margin_frames=3, seed=[1, 2])
        shown = []
        for number in range(9):
            part = slice(number * 3200, (number + 1) * 3200)
            ahead = speech[1, part.stop : part.stop + 6400] if number % 4 > 1 else None
            first = Hop(speech[0, part], speech[1, part], None, ahead, number)
            second = first if number > 3 else None  # the other conversation begins later
            shown += [frames for frames in batch.step([first, second]) if frames is not None]
        return shown

    plain = run()
    made = CachedEngine.__init__
    monkeypatch.setattr(
        CachedEngine, "__init__", lambda self, *args, **more: made(self, *args, **{**more, "padded": True})
    )
    fixed = run()
    assert len(plain) == len(fixed) == 14
    np.testing.assert_allclose(np.concatenate(fixed), np.concatenate(plain), atol=2e-4)


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
    monkeypatch.setattr(static, "graphs_wanted", lambda _: True)
    monkeypatch.setattr(static, "cuda_graph", recorded)
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
