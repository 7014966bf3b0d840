"""A conversation's promises: causal, reproducible, restorable, and clear about bad input."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from support.tiny_models import random_turn, tiny_model

from timar_ros.errors import UserError
from timar_ros.streaming import Conversation
from timar_ros.streaming.batch import frames_left
from timar_ros.streaming.noise import turn_noise

MODEL = tiny_model()


def run(talk: Conversation, seeds: range, **options: Any) -> list[np.ndarray]:
    out = []
    for seed in seeds:
        turn = random_turn(seed)
        out.append(talk.step(turn.user_speech, turn.agent_speech, turn.user_motion, **options))
    return out


def test_same_seed_same_bytes() -> None:
    first, second = (run(Conversation(MODEL, seed=5), range(3)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], run(Conversation(MODEL, seed=6), range(1))[0])
    drawn = Conversation(MODEL)
    again = Conversation(MODEL, seed=drawn.seed)
    assert np.array_equal(run(drawn, range(1))[0], run(again, range(1))[0])


def test_output_is_float32_of_a_turn() -> None:
    talk = Conversation(MODEL, seed=0)
    motion = run(talk, range(1))[0]
    assert motion.dtype == np.float32 and motion.shape == (25, 56) and np.isfinite(motion).all()
    assert talk.conditioning is not None and talk.conditioning.shape == (25, 32)


@pytest.mark.parametrize("engine", ["oracle", "cached"])
@pytest.mark.parametrize("iterations", [1, 4])
def test_what_comes_later_changes_nothing_before(engine: str, iterations: int) -> None:
    talks = [Conversation(MODEL, seed=1, engine=engine, iterations=iterations) for _ in range(2)]
    same = [run(talk, range(2)) for talk in talks]
    later = [run(talk, range(10 * number, 10 * number + 1)) for number, talk in enumerate(talks)]
    np.testing.assert_array_equal(same[0], same[1])
    assert not np.allclose(later[0], later[1])


def test_numbered_turns_shift_nothing() -> None:
    """A turn that was dropped changes the next one's history, not its noise."""
    plain, numbered = Conversation(MODEL, seed=2, context_seconds=1), Conversation(MODEL, seed=2, context_seconds=1)
    expected = run(plain, range(3))
    turn = random_turn(2)
    got = numbered.step(turn.user_speech, turn.agent_speech, turn.user_motion, number=2)
    np.testing.assert_allclose(got, expected[2], atol=1e-6)
    assert numbered.turn == 3


def test_given_noise_is_used() -> None:
    noise = turn_noise(9, 0, 5, 25)
    np.testing.assert_array_equal(
        run(Conversation(MODEL, seed=1), range(1), noise=noise)[0], run(Conversation(MODEL, seed=9), range(1))[0]
    )


def test_mlp_head_needs_no_noise() -> None:
    model = tiny_model(diffusion=False)
    first, second = (run(Conversation(model, seed=seed), range(1))[0] for seed in (1, 2))
    np.testing.assert_array_equal(first, second)


# Lost tracking


def test_no_tracker_is_the_same_as_nothing_tracked() -> None:
    turn = random_turn(0)
    first, second = Conversation(MODEL, seed=0), Conversation(MODEL, seed=0)
    lost = np.full((25, 56), np.nan, np.float32)
    np.testing.assert_array_equal(
        first.step(turn.user_speech, turn.agent_speech, None), second.step(turn.user_speech, turn.agent_speech, lost)
    )


def test_partial_motion_uses_what_is_tracked() -> None:
    turn, head_only = random_turn(0), random_turn(0).user_motion.copy()
    head_only[:, :50] = np.nan
    for model, differs in ((tiny_model(partial_motion=True), True), (MODEL, False)):
        got = []
        for shift in (0.0, 1.0):
            moved = head_only.copy()
            moved[:, 53:] += shift
            got.append(Conversation(model, seed=0).step(turn.user_speech, turn.agent_speech, moved))
        assert np.array_equal(*got) != differs


def test_standardised_models_speak_in_radians() -> None:
    model = tiny_model(standardise=True)
    plain = run(Conversation(model, seed=0), range(1))[0]
    model.motion_mean[:], model.motion_scale[:] = 2.0, 3.0
    turn = random_turn(0)
    same = Conversation(model, seed=0).step(turn.user_speech, turn.agent_speech, 3 * turn.user_motion + 2)
    np.testing.assert_allclose(same, 3 * plain + 2, rtol=1e-4, atol=1e-4)


# Noise


def test_noise_is_a_function_of_seed_and_number() -> None:
    first, again = turn_noise(1, 7, 5, 25), turn_noise(1, 7, 5, 25)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.allclose(first[0], turn_noise(1, 8, 5, 25)[0])
    assert not np.allclose(first[0], turn_noise(2, 7, 5, 25)[0])
    # Known values: a change of them would change every published run.
    np.testing.assert_allclose(turn_noise(0, 0, 2, 2)[0][0, :3], KNOWN, atol=1e-6)


KNOWN = [0.059911035, 0.015559634, -1.1644385]


@pytest.mark.parametrize("correlation", [2.0, 12.0])
def test_correlated_noise_runs_on_across_turns(correlation: float) -> None:
    turns = [np.concatenate([turn_noise(3, k, 3, 25, correlation=correlation)[0]]) for k in range(60)]
    frames = np.concatenate(turns)
    assert frames.std() == pytest.approx(1.0, abs=0.05)
    inside = np.mean([np.mean(turn[1:] * turn[:-1]) for turn in turns])
    seams = np.mean([np.mean(b[0] * a[-1]) for a, b in itertools.pairwise(turns)])
    expected = np.exp(-1 / correlation)
    assert inside == pytest.approx(expected, abs=0.05)
    assert seams == pytest.approx(expected, abs=0.05)


def test_correlation_follows_the_model_unless_told() -> None:
    model = tiny_model(noise_correlation=0.2)
    own, told, white = (Conversation(model, seed=0, noise_correlation=c) for c in (None, 0.2, 0.0))
    got = [run(talk, range(1))[0] for talk in (own, told, white)]
    np.testing.assert_array_equal(got[0], got[1])
    assert not np.allclose(got[0], got[2])


# The head's bands


def test_only_the_head_is_crossed_over() -> None:
    model = tiny_model(head_crossover=1.0, head_emphasis=2.0)
    crossed, drawn = (np.concatenate(run(Conversation(model, seed=0, head_crossover=c), range(4))) for c in (None, 0.0))
    np.testing.assert_array_equal(crossed[:, :53], drawn[:, :53])
    assert not np.allclose(crossed[:, 53:], drawn[:, 53:])
    plain = np.concatenate(run(Conversation(tiny_model(), seed=0), range(4)))
    np.testing.assert_array_equal(plain, drawn)


@pytest.mark.parametrize("options", [{}, {"iterations": 3}, {"guidance": 2.0}], ids=str)
def test_without_noise_the_expectation_is_what_is_drawn(options: dict[str, Any]) -> None:
    """The MLP head expects what it gives: crossing it over with itself changes nothing."""
    model = tiny_model(diffusion=False, head_crossover=1.0)
    crossed, drawn = (run(Conversation(model, seed=0, head_crossover=c, **options), range(3)) for c in (None, 0.0))
    np.testing.assert_allclose(crossed, drawn, atol=1e-5)


# Iterated decoding


def test_rounds_reduce_to_one() -> None:
    counts = []
    for rounds in (1, 4, 25):
        left, taken = 25, []
        for each in range(rounds):
            rest = frames_left(each, rounds, 25, left)
            taken.append(left - rest)
            left = rest
        assert left == 0 and min(taken) >= 0
        counts.append(taken)
    assert counts[0] == [25]
    assert counts[1] == [2, 6, 8, 9]  # 25 cos(pi/8 ...) rounded down: 23, 17, 9 left


def test_later_rounds_see_earlier_frames() -> None:
    one = Conversation(MODEL, seed=4)
    four = Conversation(MODEL, seed=4, iterations=4)
    first, rounds = run(one, range(1))[0], run(four, range(1))[0]
    early, late = slice(0, 2), range(2, 25)
    np.testing.assert_allclose(rounds[early], first[early], atol=1e-5)
    assert all(not np.allclose(rounds[frame], first[frame], atol=1e-5) for frame in late)


def test_linear_guidance_is_constant_guidance_in_one_round() -> None:
    constant, linear = (
        run(Conversation(MODEL, seed=0, guidance=1.7, guidance_schedule=s), range(2)) for s in ("constant", "linear")
    )
    np.testing.assert_array_equal(constant, linear)
    rounds = [
        run(Conversation(MODEL, seed=0, guidance=1.7, guidance_schedule=s, iterations=3), range(1))
        for s in ("constant", "linear")
    ]
    assert not np.allclose(*rounds)


# Anticipation


def test_plan_hears_the_agent_alone_and_changes_nothing() -> None:
    talk = Conversation(MODEL, seed=0)
    run(talk, range(2))
    turn = random_turn(2)
    first, again = talk.plan(turn.agent_speech), talk.plan(turn.agent_speech)
    np.testing.assert_array_equal(first, again)
    assert talk.turn == 2
    assert not np.allclose(first, talk.plan(random_turn(3).agent_speech))
    # What the user then does is history, so it changes the next plan.
    futures = []
    for seed in (10, 11):
        other = Conversation(MODEL, seed=0)
        run(other, range(2))
        other.plan(turn.agent_speech)
        other.observe(random_turn(seed).user_speech, turn.agent_speech, random_turn(seed).user_motion)
        assert other.turn == 3
        futures.append(other.plan(turn.agent_speech))
    assert not np.allclose(*futures)


def test_open_history_remembers_what_was_planned() -> None:
    turn = random_turn(0)
    nexts = []
    for motion in (None, np.zeros((25, 56), np.float32), "planned"):
        talk = Conversation(MODEL, seed=0, mask_history_agent=False)
        planned = talk.plan(turn.agent_speech)
        given = planned if isinstance(motion, str) else motion
        talk.observe(turn.user_speech, turn.agent_speech, turn.user_motion, motion=given)
        nexts.append(run(talk, range(1, 2))[0])
    np.testing.assert_allclose(nexts[0], nexts[2], atol=1e-6)
    assert not np.allclose(nexts[0], nexts[1])


# Memory


@pytest.mark.parametrize(
    "options", [{}, {"mask_history_agent": False}, {"context_policy": "stepped"}, {"head_crossover": 1.0}]
)
def test_restored_conversation_goes_on_the_same(options: dict[str, Any]) -> None:
    talk = Conversation(MODEL, seed=8, context_seconds=3, **options)
    run(talk, range(4))
    talk.plan(random_turn(4).agent_speech)
    file = io.BytesIO()
    np.savez(file, **talk.state_dict())
    file.seek(0)
    other = Conversation(MODEL, seed=1, context_seconds=3, **options)
    with np.load(file, allow_pickle=False) as state:
        other.load_state_dict(dict(state))
    assert (other.turn, other.seed) == (4, 8)
    for each in (talk, other):
        turn = random_turn(4)
        each.observe(turn.user_speech, turn.agent_speech, turn.user_motion)
    for a, b in zip(run(talk, range(5, 8)), run(other, range(5, 8)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_foreign_and_damaged_memories_are_refused() -> None:
    talk = Conversation(MODEL, seed=0)
    run(talk, range(5))
    state = talk.state_dict()
    with pytest.raises(UserError, match="another model"):
        Conversation(tiny_model(1)).load_state_dict(state)
    with pytest.raises(UserError, match="5 turns of history, more than"):
        Conversation(MODEL, context_seconds=3).load_state_dict(state)
    with pytest.raises(UserError, match="lacks tokens"):
        Conversation(MODEL).load_state_dict({key: value for key, value in state.items() if key != "tokens"})
    with pytest.raises(UserError, match="damaged"):
        Conversation(MODEL).load_state_dict({**state, "tokens": state["tokens"][:, 1:]})
    with pytest.raises(UserError, match=r"head of shape \[5\]: damaged"):
        Conversation(MODEL).load_state_dict({**state, "head": np.zeros(5)})


def test_reset_forgets() -> None:
    talk = Conversation(MODEL, seed=0)
    first = run(talk, range(2))
    talk.reset()
    np.testing.assert_allclose(run(talk, range(2)), first, atol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_seconds": 9}, "context_seconds = 9"),
        ({"context_seconds": 2.5}, "whole turns"),
        ({"guidance": -1.0}, "guidance = -1.0"),
        ({"guidance": float("nan")}, "guidance = nan"),
        ({"temperature": float("inf")}, "temperature = inf"),
        ({"sampling_steps": 1}, "sampling_steps = 1"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**63}, "seed = 9"),
        ({"iterations": 0}, "iterations = 0"),
        ({"iterations": 26}, "iterations = 26"),
        ({"context_policy": "infinite"}, "context_policy = 'infinite'"),
        ({"engine": "steam"}, "engine = 'steam'"),
        ({"guidance_schedule": "cosine"}, "guidance_schedule = 'cosine'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Conversation(MODEL, **options)


def test_turns_that_cannot_be() -> None:
    turn, talk = random_turn(0), Conversation(MODEL, seed=0)
    with pytest.raises(UserError, match=r"user speech has shape \[15999\], a turn needs \[16000\]"):
        talk.step(turn.user_speech[1:], turn.agent_speech, None)
    with pytest.raises(UserError, match="user motion has shape"):
        talk.step(turn.user_speech, turn.agent_speech, turn.user_motion[:, 1:])
    broken = turn.agent_speech.copy()
    broken[3] = np.nan
    with pytest.raises(UserError, match="agent speech holds 1 values that are not finite"):
        talk.step(turn.user_speech, broken, None)
    motion = turn.user_motion.copy()
    motion[0, 0] = np.inf
    with pytest.raises(UserError, match="user motion holds 1 values"):
        talk.step(turn.user_speech, turn.agent_speech, motion)
    with pytest.raises(UserError, match="step noise has shape"):
        talk.step(turn.user_speech, turn.agent_speech, None, noise=turn_noise(0, 0, 4, 25))
    assert talk.turn == 0 and np.isfinite(run(talk, range(1))[0]).all()
