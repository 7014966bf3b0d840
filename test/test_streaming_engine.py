"""The cached engine against the oracle, over all that a conversation can meet."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_models import random_turn, tiny_model

from timar_ros.model import Timar
from timar_ros.streaming import Conversation, Pipeline, PipelineOptions, TurnInput
from timar_ros.streaming.engine.cached import CachedEngine
from timar_ros.streaming.engine.full_window import FullWindow

MODEL = tiny_model()
PARTIAL = tiny_model(partial_motion=True, standardise=True, head_crossover=1.0, head_emphasis=2.0)
MLP = tiny_model(diffusion=False)
TOLERANCE = 1e-4


def pair(model: Timar, padded: bool = False, **options: Any) -> tuple[Conversation, Conversation]:
    oracle, cached = (Conversation(model, seed=3, engine=engine, **options) for engine in ("oracle", "cached"))
    assert isinstance(oracle.batch.engine, FullWindow)
    assert isinstance(cached.batch.engine, CachedEngine)
    cached.batch.engine.padded = padded
    return oracle, cached


def act(talk: Conversation, action: str, seed: int) -> list[np.ndarray]:
    """One turn, in one of the ways a conversation can take it; what it gave."""
    turn = random_turn(seed, {"step_none": "none", "step_some": "some", "step_partly": "partly"}.get(action, "all"))
    out = []
    if action.startswith("step"):
        out = [talk.step(turn.user_speech, turn.agent_speech, turn.user_motion)]
    else:
        moved = None
        if action.startswith("plan"):
            out = [talk.plan(turn.agent_speech)]
            moved = out[0] + 0.1 if action == "plan_moved" else None  # seams joined: not quite what was planned
            tracked = {"plan_none": "none", "plan_some": "some"}.get(action, "all")
            turn = random_turn(seed, tracked)
        talk.observe(turn.user_speech, turn.agent_speech, turn.user_motion, moved)
    if out:
        assert talk.conditioning is not None
        out.append(talk.conditioning)
    return out


def assert_same(oracle: Conversation, cached: Conversation, action: str, seed: int) -> None:
    for expected, got in zip(act(oracle, action, seed), act(cached, action, seed), strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


ACTIONS = ("step", "step_none", "step_some", "step_partly", "plan", "plan_none", "plan_some", "plan_moved", "skip")
OPTIONS = [
    {"mask_history_agent": masked, "guidance": guidance, "context_policy": policy, "iterations": iterations}
    for masked, guidance, policy, iterations in itertools.product(
        (True, False), (1.0, 1.7), ("sliding", "stepped"), (1, 3)
    )
]


@pytest.mark.parametrize("padded", [False, True], ids=["own_length", "padded"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_equals_oracle_for_every_combination(options: dict[str, Any], padded: bool) -> None:
    oracle, cached = pair(MODEL, padded, context_seconds=5, **options)
    plan = (*ACTIONS, "step", "step", "plan", "step")
    for seed, action in enumerate(plan):
        if seed % 3 == 1:
            cached.prepare()
        assert_same(oracle, cached, action, seed)


@settings(max_examples=25, deadline=None)
@given(
    actions=st.lists(st.sampled_from((*ACTIONS, "prepare", "restore", "reset")), min_size=1, max_size=14),
    context=st.sampled_from([1, 2, 3, 5, 8]),
    policy=st.sampled_from(["sliding", "stepped"]),
    masked=st.booleans(),
    guidance=st.sampled_from([1.0, 2.0]),
    model=st.sampled_from([MODEL, PARTIAL, MLP]),
    padded=st.booleans(),
)
def test_equals_oracle_whatever_happens(
    actions: list[str], context: int, policy: str, masked: bool, guidance: float, model: Timar, padded: bool
) -> None:
    options: dict[str, Any] = {
        "context_seconds": context, "context_policy": policy, "mask_history_agent": masked, "guidance": guidance,
    }  # fmt: skip
    oracle, cached = pair(model, padded, **options)
    for seed, action in enumerate(actions):
        if action == "prepare":
            cached.prepare()
        elif action == "reset":
            oracle.reset()
            cached.reset()
        elif action == "restore":
            saved = cached.state_dict()
            cached = pair(model, padded, **options)[1]
            cached.load_state_dict(saved)
        else:
            assert_same(oracle, cached, action, seed)


def test_full_window_of_the_paper() -> None:
    oracle, cached = pair(MODEL)
    for seed in range(11):
        assert_same(oracle, cached, "step", seed)
        cached.prepare()


def test_prepare_leaves_nothing_for_the_next_turn() -> None:
    cached = pair(MODEL, context_seconds=3)[1]
    engine = cached.batch.engine
    assert isinstance(engine, CachedEngine)
    counts = []
    for seed in range(5):
        act(cached, "step", seed)
        counts.append(engine.outstanding(0))
        cached.prepare()
        assert engine.outstanding(0) == 0
    # Two turns of history: nothing to do while it grows, both anew once it slides.
    assert counts == [0, 0, 2, 2, 2]


def test_stepped_history_grows_and_falls_back() -> None:
    cached = pair(MODEL, context_policy="stepped")[1]
    lengths = []
    for seed in range(14):
        act(cached, "step", seed)
        lengths.append(len(cached.batch.engine.histories[0]))
    assert lengths == [1, 2, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7, 3, 4]


def test_memory_does_not_grow_with_the_conversation() -> None:
    cached = pair(MODEL)[1]
    engine = cached.batch.engine
    assert isinstance(engine, CachedEngine)
    size = engine.cache.nbytes
    for seed in range(20):
        act(cached, "step", seed % 3)
    assert engine.cache.nbytes == size
    assert len(engine.histories[0]) == 7


@pytest.mark.parametrize("variant", [{"causal": False}, {"encoder_only": False, "decoder_depth": 1}])
def test_variants_without_a_cache_use_the_oracle(variant: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model(**variant)
    with caplog.at_level(logging.WARNING):
        oracle, talk, _ = (Conversation(model, engine=engine, seed=3) for engine in ("oracle", "cached", "cached"))
    assert len(caplog.records) == 1 and "computes the whole window" in caplog.text  # who asks for the oracle knows
    assert isinstance(talk.batch.engine, FullWindow)
    for seed, action in enumerate(("step", "plan_some", "skip", "step_none")):
        assert_same(oracle, talk, action, seed)
        talk.prepare()


@pytest.mark.parametrize("engine", ["oracle", "cached"])
def test_history_after_plans_is_what_really_happened(engine: str) -> None:
    """Anticipatory turns leave the history that reactive ones leave: with what the user really did."""
    reactive, ahead = (Conversation(MODEL, seed=3, engine=engine, context_seconds=4) for _ in range(2))
    for seed in range(6):
        turn = random_turn(seed, "some")
        reactive.step(turn.user_speech, turn.agent_speech, turn.user_motion)
        ahead.plan(turn.agent_speech)
        ahead.observe(turn.user_speech, turn.agent_speech, turn.user_motion)
        ahead.prepare()
    saved = [talk.state_dict() for talk in (reactive, ahead)]
    for name in ("tokens", "masked", "turn"):
        np.testing.assert_allclose(saved[1][name], saved[0][name], rtol=0, atol=1e-5)
    turn = random_turn(9)
    motions = [talk.step(turn.user_speech, turn.agent_speech, turn.user_motion) for talk in (reactive, ahead)]
    np.testing.assert_allclose(motions[1], motions[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("masked", [True, False])
def test_a_turn_planned_before_the_one_before_it_is_over(masked: bool) -> None:
    """Each turn's history gets its own plan; a turn that was never planned is not given the next one's."""
    options: dict[str, Any] = {"context_seconds": 4, "mask_history_agent": masked}
    ahead, ordered = pair(MODEL, **options)[1], pair(MODEL, **options)[0]
    turns = [random_turn(seed, "some") for seed in range(6)]
    plans = [ahead.plan(turns[0].agent_speech, number=0)]
    for number, turn in enumerate(turns):
        if number + 1 < len(turns) and number != 2:  # turn 3's plan came too late
            plans.append(ahead.plan(turns[number + 1].agent_speech, number=number + 1))
        else:
            plans.append(np.empty(0))
        if number == 4:  # a node restarts between a plan and its turn
            saved, ahead = ahead.state_dict(), pair(MODEL, **options)[1]
            ahead.load_state_dict(saved)
        done = plans[number] if len(plans[number]) else None
        ahead.observe(turn.user_speech, turn.agent_speech, turn.user_motion, number=number)
        ordered.observe(turn.user_speech, turn.agent_speech, turn.user_motion, done, number=number)
    for name in ("tokens", "masked"):
        np.testing.assert_allclose(ahead.state_dict()[name], ordered.state_dict()[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("masked", [True, False])
def test_an_anticipatory_pipeline_is_the_same_with_either_engine(masked: bool) -> None:
    """Plans ahead of their turns, a plan that never came, a turn that was dropped, no tracker: frame for frame."""
    engines: tuple[Literal["oracle", "cached"], ...] = ("oracle", "cached")
    made = []
    for engine in engines:
        options = PipelineOptions(mode="anticipatory", engine=engine, context_seconds=4, mask_history_agent=masked)
        pipeline, out = Pipeline(MODEL, options), []
        for number in range(8):
            data = random_turn(number, "some")
            speech = [np.clip(0.2 * np.asarray(each), -1, 1) for each in (data.user_speech, data.agent_speech)]
            motion = None if number == 3 else np.asarray(data.user_motion)
            whole = TurnInput(number, number * 10**9, 1.0, speech[0], speech[1], motion)
            if number != 4:
                planned = dataclasses.replace(
                    whole, user_speech=np.zeros_like(speech[0]), user_motion=None, planned=True
                )
                out.append(pipeline.step(planned))
            if number == 5:
                pipeline.skip(whole)
            else:
                assert pipeline.step(whole) is None
            if number % 2:
                pipeline.idle()
        made.append(np.stack([each.frames for each in out if each is not None]))
    assert made[0].shape == (7, 25, 56)
    np.testing.assert_allclose(made[1], made[0], rtol=0, atol=TOLERANCE)
