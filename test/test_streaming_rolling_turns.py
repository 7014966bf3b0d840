"""Rolling mode's turn building: hops, and what is known of the agent's speech after them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from timar_ros.streaming.turns.turn_builder import TurnBuilder, TurnInput

NS = 1_000_000_000
RATE = 16000
HOP, LOOK, DELAY = 0.2, 0.4, 0.32
SECONDS = 8
USER = np.random.default_rng(0).uniform(-0.5, 0.5, SECONDS * RATE).astype(np.float32)
SPEECH = np.random.default_rng(1).uniform(-0.5, 0.5, 5 * RATE).astype(np.float32)

Event = tuple[float, str, float, int, NDArray[np.float32], int, bool]
"""Arrival [s], speaker, stamp [s], sample index, samples, stream and whether it ends."""


def reactive() -> TurnBuilder:
    """What a robot that waits for complete turns has."""
    return TurnBuilder(1.0)


def builder(**options: Any) -> TurnBuilder:
    return TurnBuilder(HOP, "rolling", look_ahead=LOOK, voice_delay=DELAY, **options)


def user_chunks(seconds: float = 0.02) -> Iterator[Event]:
    """A microphone: each chunk comes when its last sample was heard."""
    size = round(seconds * RATE)
    for index in range(0, len(USER), size):
        chunk = USER[index : index + size]
        yield (index + len(chunk)) / RATE, "user", index / RATE, index, chunk, 0, False


def speech_chunks(
    said: float, length: float, chunk: float, lead: float, stream: int = 1, pace: float = 0.0, ends: bool = True
) -> Iterator[Event]:
    """A speech synthesizer: chunks of an utterance that begins at ``said``, from ``said - lead`` on.

    :param pace: seconds of arrival time for each second of speech; 0: a burst.
    """
    samples, size = SPEECH[: round(length * RATE)], round(chunk * RATE)
    for index in range(0, len(samples), size):
        part = samples[index : index + size]
        last = index + size >= len(samples)
        yield said - lead + pace * index / RATE, "agent", said + index / RATE, index, part, stream, ends and last


def build(*sources: Iterator[Event], made: TurnBuilder | None = None) -> tuple[list[TurnInput], TurnBuilder]:
    made = builder() if made is None else made
    hops = []
    events = sorted((event for source in sources for event in source), key=lambda event: (event[0], event[3]))
    for arrival, role, stamp, index, samples, stream, end in events:
        made.advance(round(arrival * NS))
        refused = made.add_audio(role, round(stamp * NS), index, RATE, samples, stream_id=stream, end=end)  # type: ignore[arg-type]
        assert refused is None
        hops += made.pop()
    return hops, made


def same(hops: list[TurnInput], others: list[TurnInput]) -> None:
    assert len(hops) == len(others) > 30
    for one, other in zip(hops, others, strict=True):
        assert (one.number, one.stamp_ns, one.lost_user) == (other.number, other.stamp_ns, other.lost_user)
        np.testing.assert_array_equal(one.user_speech, other.user_speech)
        np.testing.assert_array_equal(one.agent_speech, other.agent_speech)
        assert (one.agent_ahead is None) == (other.agent_ahead is None)
        if one.agent_ahead is not None:
            np.testing.assert_array_equal(one.agent_ahead, other.agent_ahead)


@pytest.mark.parametrize("chunk", [0.02, 0.1, 0.2, 5.0])
@pytest.mark.parametrize("pace", [0.0, 0.3, 0.9])
def test_bursts_of_any_chunks_give_the_same_hops(chunk: float, pace: float) -> None:
    """Faster than real time, in chunks of any length, of a length nobody knows before: nothing is lost, nothing new."""
    pace = 0.0 if chunk == 5.0 else pace
    hops, made = build(user_chunks(), speech_chunks(1.5, 3.0, chunk, lead=0.6, pace=pace))
    same(hops, build(user_chunks(), speech_chunks(1.5, 3.0, 0.02, lead=0.6))[0])
    assert made.counters.foreign_clocks == made.counters.too_far_ahead == made.counters.late_chunks == 0
    heard = np.concatenate([hop.user_speech for hop in hops])
    np.testing.assert_array_equal(heard, USER[: len(heard)])
    said = np.concatenate([hop.agent_speech for hop in hops])
    np.testing.assert_array_equal(said[24000:72000], SPEECH[:48000])


def test_speech_ahead_is_given_up_to_the_look_ahead() -> None:
    hops, _ = build(user_chunks(), speech_chunks(1.5, 3.0, 0.02, lead=0.6))
    for hop in hops:
        end = hop.stamp_ns / NS + HOP
        assert hop.agent_ahead is not None
        assert len(hop.agent_ahead) == LOOK * RATE
        wanted = np.zeros(round(LOOK * RATE), np.float32)
        for sample in range(len(wanted)):
            place = round((end - 1.5) * RATE) + sample
            if 0 <= place < 48000:
                wanted[sample] = SPEECH[place]
        np.testing.assert_array_equal(hop.agent_ahead, wanted)


def test_the_agent_on_a_microphone_is_never_ahead() -> None:
    """Speech that comes as it is said, silence included: each hop waits for it, none knows what follows."""
    live = speech_chunks(0.0, 5.0, 0.02, lead=-0.02, pace=1.0)
    hops, _ = build((e for e in user_chunks() if e[0] <= 5.0), live)
    assert len(hops) > 20
    assert [hop.agent_ahead for hop in hops if hop.number > 0] == [None] * (len(hops) - 1)
    said = np.concatenate([hop.agent_speech for hop in hops])
    np.testing.assert_array_equal(said, SPEECH[: len(said)])


def test_each_utterance_goes_its_own_way() -> None:
    """One ahead, one not: hops know the future again once the late voice has been heard to its end."""
    hops, _ = build(
        user_chunks(),
        speech_chunks(1.0, 1.0, 0.02, lead=0.6),
        speech_chunks(3.0, 1.0, 0.02, lead=-0.02, pace=1.0, stream=2),
        speech_chunks(6.0, 1.0, 0.02, lead=0.6, stream=3),
    )
    unknown = [hop.stamp_ns / NS + HOP for hop in hops if hop.agent_ahead is None]
    assert 3.0 < unknown[0] <= 3.0 + HOP
    assert 4.0 + DELAY - HOP <= unknown[-1] <= 4.0 + DELAY
    assert len(unknown) == pytest.approx((1.0 + DELAY) / HOP, abs=1.5)


@pytest.mark.parametrize("chunk", [0.02, 0.2])
@pytest.mark.parametrize("said", [0.3, 1.5])
def test_speech_ahead_takes_nothing_of_the_partner_in_reactive_mode(chunk: float, said: float) -> None:
    """An utterance that comes whole and early leaves the partner's sound as it is, and is said at its time."""
    hops, made = build(user_chunks(), speech_chunks(said, 3.0, chunk, lead=0.6), made=reactive())
    # The utterance may come before the partner's first sound: then the conversation begins with the utterance.
    start = hops[0].stamp_ns / NS
    counters = made.counters
    assert counters.foreign_clocks == counters.late_chunks == counters.lost_user == counters.pauses == 0
    heard = np.concatenate([turn.user_speech for turn in hops])
    np.testing.assert_array_equal(heard, USER[round(start * RATE) :][: len(heard)])
    assert len(heard) >= 7 * RATE
    spoken = np.concatenate([turn.agent_speech for turn in hops])
    first = round((said - start) * RATE)
    np.testing.assert_array_equal(spoken[first : first + 48000], SPEECH[:48000])
    assert [voice.ahead for voice in made.pop_voices()] == [True]


def test_an_utterance_that_is_cancelled_is_forgotten() -> None:
    made, cancelled = builder(), False
    hops: list[TurnInput] = []
    for arrival, role, stamp, index, samples, stream, end in sorted(
        [*user_chunks(), *speech_chunks(1.0, 3.0, 0.02, lead=0.6)], key=lambda event: (event[0], event[3])
    ):
        if arrival > 2.5 and not cancelled:
            made.drop_agent()
            cancelled = True
        made.advance(round(arrival * NS))
        made.add_audio(role, round(stamp * NS), index, RATE, samples, stream_id=stream, end=end)  # type: ignore[arg-type]
        hops += made.pop()
    after = [hop for hop in hops if hop.stamp_ns / NS >= 2.6]
    assert len(after) > 20
    assert all(hop.agent_ahead is not None and not hop.agent_ahead.any() for hop in after)
    assert not any(hop.agent_speech.any() for hop in after)


def test_a_source_that_dies_without_a_word_frees_the_hops() -> None:
    """A stream that never said that it ended does not hold the robot in the late way for ever."""
    dies = (event for event in speech_chunks(1.0, 3.0, 0.02, lead=-0.02, pace=1.0, ends=False) if event[0] < 2.0)
    hops, _ = build(user_chunks(), dies)
    unknown = [hop.stamp_ns / NS + HOP for hop in hops if hop.agent_ahead is None]
    assert unknown[0] <= 1.0 + HOP
    assert 2.0 < unknown[-1] < 5.0
    assert len(hops) > 35


def test_an_utterance_announced_early_takes_nothing_of_the_one_that_still_runs() -> None:
    """A late voice is complete in every hop, also when speech that comes after it is known already."""
    late = [(at + 0.03, *rest) for at, *rest in speech_chunks(1.0, 2.0, 0.02, lead=-0.02, pace=1.0)]
    hops, made = build(user_chunks(), iter(late), speech_chunks(4.0, 1.0, 0.02, lead=2.5, stream=2))
    assert made.counters.lost_agent == made.counters.late_chunks == 0
    said = np.concatenate([hop.agent_speech for hop in hops])
    np.testing.assert_array_equal(said[RATE : 3 * RATE], SPEECH[: 2 * RATE])


def test_a_late_voice_that_is_known_early_is_silent_until_it_begins() -> None:
    """Speech that comes too late to be ahead, but before its first stamp, is no speech ahead."""
    hops, _ = build(user_chunks(), speech_chunks(2.1, 1.0, 0.02, lead=0.3))
    before = [hop for hop in hops if hop.stamp_ns / NS + HOP <= 2.1]
    assert len(before) >= 9
    assert all(hop.agent_ahead is not None and not hop.agent_ahead.any() for hop in before)
    after = [hop for hop in hops if 2.1 < hop.stamp_ns / NS + HOP <= 3.1]
    assert after
    assert all(hop.agent_ahead is None for hop in after)


def test_what_a_bag_knows_of_a_stream_counts_more_than_its_stamps() -> None:
    made = builder(streams_ahead={1: False})
    hops, _ = build(user_chunks(), speech_chunks(2.0, 1.0, 0.02, lead=0.6), made=made)
    assert [voice.ahead for voice in made.pop_voices()] == [False]
    assert any(hop.agent_ahead is None for hop in hops)
