"""Many conversations in one pass: each gets what it would get alone."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_models import random_turn, tiny_model

from timar_ros.errors import UserError
from timar_ros.streaming import Conversation, ConversationBatch, TurnData
from timar_ros.streaming.engine.cached import CachedEngine

MODEL = tiny_model()


@pytest.mark.parametrize("padded", [False, True], ids=["own_length", "padded"])
@pytest.mark.parametrize("policy", ["sliding", "stepped"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_result_does_not_depend_on_who_shares_the_batch(padded: bool, policy: str, guidance: float) -> None:
    count, options = 4, {"context_seconds": 5, "context_policy": policy, "guidance": guidance}
    batch = ConversationBatch(MODEL, count, seed=range(count), **options)
    assert isinstance(batch.engine, CachedEngine)
    batch.engine.padded = padded
    alone = [Conversation(MODEL, seed=row, engine="oracle", **options) for row in range(count)]
    # Conversations come in one after another and pause, so histories differ in length all the time.
    for now in range(9):
        turns: list[TurnData | None] = [
            random_turn(100 * row + now) if now >= 2 * row and (now + row) % 4 else None for row in range(count)
        ]
        got = batch.step(turns)
        for row, turn in enumerate(turns):
            if turn is None:
                assert got[row] is None
                continue
            expected = alone[row].step(turn.user_speech, turn.agent_speech, turn.user_motion)
            np.testing.assert_allclose(got[row], expected, rtol=0, atol=1e-4)
        if now % 2:
            batch.prepare()
    assert batch.turns == [talk.turn for talk in alone]


def test_reset_of_one_leaves_the_others() -> None:
    batch = ConversationBatch(MODEL, 2, seed=0)
    first = batch.step([random_turn(0), random_turn(1)])
    batch.reset(0)
    assert batch.turns == [0, 1]
    again = batch.step([random_turn(0), random_turn(2)])
    np.testing.assert_allclose(again[0], first[0], atol=1e-5)
    assert batch.turns == [1, 2]


def test_planned_and_plain_conversations_side_by_side() -> None:
    batch = ConversationBatch(MODEL, 2, seed=5)
    talk = Conversation(MODEL, seed=5, engine="oracle")
    for now in range(3):
        turn = random_turn(now)
        planned = batch.plan([None, turn])[1]
        np.testing.assert_allclose(planned, talk.plan(turn.agent_speech), atol=1e-4)
        batch.step([random_turn(50 + now), None])
        batch.observe([None, turn])
        talk.observe(turn.user_speech, turn.agent_speech, turn.user_motion)


@pytest.mark.parametrize("padded", [False, True], ids=["own_length", "padded"])
def test_idle_work_of_others_stays_off_a_turn(padded: bool) -> None:
    batch = ConversationBatch(MODEL, 2, seed=0, context_seconds=2)
    assert isinstance(batch.engine, CachedEngine)
    batch.engine.padded = padded
    for now in range(3):
        batch.step([random_turn(now), random_turn(10 + now)])
    assert [batch.engine.outstanding(row) for row in (0, 1)] == [1, 1]
    batch.step([random_turn(3), None])
    assert batch.engine.outstanding(1) == 1
    talk = Conversation(MODEL, seed=0, context_seconds=2, engine="oracle")
    for now in range(4):
        turn = random_turn(10 + now)
        expected = talk.step(turn.user_speech, turn.agent_speech, turn.user_motion)
    np.testing.assert_allclose(batch.step([None, random_turn(13)])[1], expected, atol=1e-4)


def test_wrong_counts_are_refused() -> None:
    batch = ConversationBatch(MODEL, 2, seed=0)
    with pytest.raises(UserError, match="1 turns for 2 conversations"):
        batch.step([random_turn(0)])
    with pytest.raises(UserError, match="3 seeds for 2"):
        ConversationBatch(MODEL, 2, seed=[1, 2, 3])
