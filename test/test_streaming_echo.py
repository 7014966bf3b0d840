"""The half-duplex guard."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timar_ros.streaming.echo import EchoGuard

RATE = 16000
SECOND = 1_000_000_000


def speech(seconds: float, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(1).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_the_user_is_muted_while_the_agent_is_played_and_a_little_beyond() -> None:
    guard = EchoGuard(leak=0.1, delay_ns=SECOND, hang_seconds=0.2)
    guard.play(10 * SECOND, RATE, speech(1.0))  # heard in the room from 11 s to 12 s
    user = speech(4.0)
    out = guard.hear(10 * SECOND, RATE, user)
    np.testing.assert_array_equal(out[:RATE], user[:RATE])
    np.testing.assert_allclose(out[RATE : 2 * RATE], 0.1 * user[RATE : 2 * RATE])
    np.testing.assert_allclose(out[2 * RATE : round(2.19 * RATE)], 0.1 * user[2 * RATE : round(2.19 * RATE)])
    np.testing.assert_array_equal(out[round(2.21 * RATE) :], user[round(2.21 * RATE) :])
    assert guard.muted_samples == pytest.approx(1.2 * RATE, abs=RATE * 0.01)


def test_a_silent_agent_mutes_nobody() -> None:
    guard = EchoGuard()
    guard.play(0, RATE, speech(1.0, level=1e-4))
    user = speech(1.0)
    assert guard.hear(0, RATE, user) is user


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=20), st.lists(st.integers(1, 4000), min_size=1, max_size=20))
def test_how_the_agents_audio_is_cut_changes_little(agent_cuts: list[int], user_cuts: list[int]) -> None:
    agent, user = speech(0.5), speech(1.0)

    def run(cuts_agent: list[int], cuts_user: list[int]) -> np.ndarray:
        guard = EchoGuard(leak=0.0, delay_ns=SECOND // 4, hang_seconds=0.1)
        for data, cuts, sink in ((agent, cuts_agent, guard.play), (user, cuts_user, guard.hear)):
            edges = [0, *np.minimum(np.cumsum(cuts), len(data)).tolist(), len(data)]
            out = [sink(round(a * 1e9 / RATE), RATE, data[a:b]) for a, b in itertools.pairwise(edges) if b > a]
        return np.concatenate(out)

    whole, cut = run([len(agent)], [len(user)]), run(agent_cuts, user_cuts)
    assert (whole != cut).mean() < 0.02  # only the edges of a sound move, by less than a slice


def test_memory_is_bounded() -> None:
    guard = EchoGuard()
    for second in range(0, 2000, 2):
        guard.play(second * SECOND, RATE, speech(0.5))
    assert len(guard._loud) < 40


def test_a_wrong_leak_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        EchoGuard(leak=1.5)
