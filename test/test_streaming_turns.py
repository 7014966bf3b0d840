"""Turns: the same whatever the chunks, sample-exact, and never stopped by what comes."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from timar_ros.streaming.turns.turn_builder import TurnBuilder, TurnInput

MS = 1_000_000
NS = 1_000_000_000
T0 = 1_700_000_000 * NS + 123_456_789


def voice(seconds, rate=16000, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32).clip(-1, 1)


def chunks(role, samples, rate, length=0.02, start=T0, first_index=0, stream_id=0, end=False, cuts=None):
    """A recording as (stamp, add_audio's arguments), cut evenly or at the given indices."""
    if cuts is None:
        step = round(length * rate)
        cuts = range(step, len(samples), step)
    edges = [0, *cuts, len(samples)]
    made = []
    for a, b in itertools.pairwise(edges):
        if a < b:
            stamp = start + (first_index + a) * NS // rate
            last = end and b == len(samples)
            made.append((stamp, (role, stamp, first_index + a, rate, samples[a:b], stream_id, last)))
    return made


def frames_at(times_ns, start=T0):
    """A smooth head motion as a function of time."""
    t = (np.asarray(times_ns) - start)[:, None] / NS
    frames = np.zeros((len(t), 56), np.float32)
    frames[:, :50] = np.sin(t * np.linspace(0.5, 3.0, 50))
    frames[:, 50:51] = 0.2 + 0.1 * np.sin(5 * t)
    frames[:, 53:56] = 0.5 * np.sin(t * [1.0, 1.3, 0.7])
    return frames


def motion(seconds, rate=25.0, start=T0, each=1):
    times = start + np.round(np.arange(round(seconds * rate)) * NS / rate).astype(np.int64)
    frames = frames_at(times)
    return [(int(times[i]), ("motion", int(times[i]), rate, frames[i : i + each])) for i in range(0, len(times), each)]


def feed(builder, items):
    for _, item in items:
        if item[0] == "motion":
            assert builder.add_motion(*item[1:]) is None
        elif item[0] == "gap":
            assert builder.end_motion_gap(*item[1:]) is None
        else:
            assert builder.add_audio(*item) is None


def play(items, **options):
    """Turns of input in the order of its stamps, and the counters."""
    builder = TurnBuilder(**options)
    feed(builder, sorted(items, key=lambda item: item[0]))
    turns = builder.pop() + builder.finish()
    return turns, builder.counters


def as_bytes(turns: list[TurnInput]):
    return [
        (
            t.number,
            t.stamp_ns,
            t.planned,
            t.lost_user,
            t.lost_agent,
            t.user_speech.tobytes(),
            t.agent_speech.tobytes(),
            None if t.user_motion is None else t.user_motion.tobytes(),
        )
        for t in turns
    ]


def test_turns_hold_the_samples_exactly():
    user, agent = voice(3.0, seed=1), voice(3.0, seed=2)
    turns, counters = play(chunks("user", user, 16000) + chunks("agent", agent, 16000) + motion(3.0))
    assert [t.number for t in turns] == [0, 1, 2]
    assert [t.stamp_ns for t in turns] == [T0, T0 + NS, T0 + 2 * NS]
    np.testing.assert_array_equal(np.concatenate([t.user_speech for t in turns]), user)
    np.testing.assert_array_equal(np.concatenate([t.agent_speech for t in turns]), agent)
    np.testing.assert_array_equal(
        np.concatenate([t.user_motion for t in turns]), frames_at(T0 + 40 * MS * np.arange(75))
    )
    assert counters.lost_user == counters.lost_agent == counters.late_chunks == 0
    assert counters.turns == 3


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 44101, 48000, 96000])
def test_resampled_turns_equal_the_whole_recording_resampled(rate):
    user = voice(4.0, rate)
    turns, _ = play(chunks("user", user, rate, 0.013) + chunks("agent", voice(4.0), 16000))
    made, wanted = np.concatenate([t.user_speech for t in turns]), soxr.resample(user, rate, 16000)
    np.testing.assert_allclose(made[64:], wanted[64:], atol=2e-6)  # soxr makes up samples before the first


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_no_delay_between_speakers_of_different_rates(rate):
    t = np.arange(3 * rate) / rate
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32) * 0.5
    reference = np.sin(2 * np.pi * 440 * np.arange(48000) / 16000).astype(np.float32) * 0.5
    turns, _ = play(chunks("user", tone, rate) + chunks("agent", reference, 16000))
    np.testing.assert_allclose(turns[1].user_speech, turns[1].agent_speech, atol=1e-4)


def test_channels_are_averaged_and_integers_scaled():
    stereo = np.stack([voice(2.0, seed=1), voice(2.0, seed=2)], axis=1)
    builder = TurnBuilder()
    builder.add_audio("user", T0, 0, 16000, stereo)
    builder.add_audio("agent", T0, 0, 16000, np.full(32000, -16384, np.int16))
    turns = builder.finish()
    np.testing.assert_array_equal(turns[0].user_speech, stereo.mean(axis=1)[:16000])
    assert (turns[0].agent_speech == -0.5).all()


# How the input is cut, doubled and shuffled must not matter.

USER_RATE, AGENT_RATE = 22050, 16000
USER, AGENT = voice(3.3, USER_RATE, 1), voice(2.6, AGENT_RATE, 2)
HOLE = (14000, 16500)  # samples of the agent that never come
AGENT_START = T0 + 37 * MS + 31_250


def cut_input(user_cuts, agent_cuts, motion_each):
    agent_cuts = sorted({c for c in agent_cuts if not HOLE[0] < c < HOLE[1]} | set(HOLE))
    agent = chunks("agent", AGENT, AGENT_RATE, start=AGENT_START, cuts=agent_cuts, end=True)
    return (
        chunks("user", USER, USER_RATE, cuts=sorted(user_cuts))
        + [item for item in agent if item[1][2] != HOLE[0]]
        + motion(3.0, rate=30.0, start=T0 + 11 * MS, each=motion_each)
    )


EXPECTED = as_bytes(play(cut_input(range(441, len(USER), 441), range(320, len(AGENT), 320), 1))[0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    user_cuts=st.sets(st.integers(1, len(USER) - 1), max_size=80),
    agent_cuts=st.sets(st.integers(1, len(AGENT) - 1), max_size=80),
    motion_each=st.integers(1, 40),
    lateness=st.lists(st.integers(0, 49), min_size=1, max_size=50),
    doubled=st.lists(st.booleans(), min_size=1, max_size=50),
)
def test_chunking_reordering_and_duplicates_change_no_byte(user_cuts, agent_cuts, motion_each, lateness, doubled):
    items = cut_input(user_cuts, agent_cuts, motion_each)
    # Each item comes up to 49 ms after its stamp's turn, some come twice.
    arrivals = [(s + lateness[i % len(lateness)] * MS, i, x) for i, (s, x) in enumerate(items)]
    arrivals += [
        (s + (lateness[(i + 7) % len(lateness)]) * MS, i, x)
        for i, (s, x) in enumerate(items)
        if doubled[i % len(doubled)]
    ]
    builder = TurnBuilder()
    turns = []
    for _at, _, item in sorted(arrivals, key=lambda a: a[:2]):
        if item[0] == "motion":
            builder.add_motion(*item[1:])
        else:
            builder.add_audio(*item)
        turns += builder.pop()
    turns += builder.finish()
    assert as_bytes(turns) == EXPECTED


def test_the_input_of_the_property_test_holds_what_it_is_to_show():
    assert [number for number, *_ in EXPECTED] == [0, 1, 2, 3]
    assert sum(lost_agent for *_, lost_agent, _, _, _ in EXPECTED) == HOLE[1] - HOLE[0]


def test_lost_samples_become_silence_and_are_counted():
    user = voice(2.0)
    items = [i for i in chunks("user", user, 16000) if i[1][2] not in (3200, 3520)]
    turns, counters = play(items + chunks("agent", voice(2.0), 16000))
    expected = user[:16000].copy()
    expected[3200:3840] = 0
    np.testing.assert_array_equal(turns[0].user_speech, expected)
    assert turns[0].lost_user == counters.lost_user == 640
    assert turns[0].lost_agent == 0


def test_a_loss_waits_for_max_lateness_and_late_chunks_are_dropped():
    builder = TurnBuilder(max_lateness=0.05)
    user = chunks("user", voice(3.0, seed=1), 16000)
    agent = chunks("agent", voice(3.0, seed=2), 16000)
    held = user.pop(49)  # the last chunk of turn 0
    for u, a in zip(user[:49], agent[:50], strict=False):
        feed(builder, [u, a])
    assert builder.pop() == []
    feed(builder, [agent[50], agent[51]])
    assert builder.pop() == []
    feed(builder, [agent[52], agent[53]])  # begins 60 ms after the turn's end
    (turn,) = builder.pop()
    assert turn.lost_user == 320
    assert builder.add_audio(*held[1]) is None
    assert builder.counters.late_chunks == 1
    assert builder.counters.late_samples == 320
    assert builder.pop() == []


def test_a_turn_closes_at_once_when_all_has_come():
    builder = TurnBuilder(max_lateness=0.05)
    user, agent = chunks("user", voice(1.0), 16000), chunks("agent", voice(1.0), 16000)
    for pair in zip(user, agent, strict=False):
        assert builder.pop() == []
        feed(builder, pair)
    assert len(builder.pop()) == 1


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_resampling_waits_for_little_more_than_the_turn(rate):
    builder = TurnBuilder()
    closed = None
    for u, a in zip(
        chunks("user", voice(2.0, rate), rate, 0.002), chunks("agent", voice(2.0), 16000, 0.002), strict=False
    ):
        feed(builder, [u, a])
        if builder.pop():
            closed = u[0] + 2 * MS - T0 - NS
            break
    assert closed is not None
    assert closed <= (18 if rate == 8000 else 10) * MS


@pytest.mark.parametrize("stopped", ["user", "agent"])
def test_a_stopped_stream_does_not_stop_the_turns(stopped):
    other = "agent" if stopped == "user" else "user"
    turns, _counters = play(chunks(stopped, voice(1.5), 16000) + chunks(other, voice(6.0), 16000), max_lateness=0.05)
    assert [t.number for t in turns] == list(range(6))
    lost = [getattr(t, f"lost_{stopped}") for t in turns[:5]]
    assert lost == [0, 8000, 16000, 16000, 16000]
    assert getattr(turns[2], f"{stopped}_speech").any() == 0


def test_the_clock_closes_turns_when_nothing_comes():
    builder = TurnBuilder(max_lateness=0.05)
    feed(builder, chunks("user", voice(0.5), 16000, 0.1))
    clock = 5 * NS  # unlike the stamps' in every respect
    builder.advance(clock)
    given = []
    for _ in range(300):
        clock += 10 * MS
        builder.advance(clock)
        given += [(t.number, clock) for t in builder.pop()]
    # The last chunk began at 0.4 s when the clock said 5.0; turn 0 ends 0.6 s later, and 50 ms are waited.
    assert given[0] == (0, 5 * NS + 650 * MS)
    assert given[1] == (1, 5 * NS + 1650 * MS)
    assert builder.counters.clock_jumps == 0


def test_a_clock_that_jumps_closes_no_turn():
    builder = TurnBuilder()
    feed(builder, chunks("user", voice(0.5), 16000))
    for now in (0, 10 * MS, 3600 * NS, -50 * NS):
        builder.advance(now)
    assert builder.pop() == []
    assert builder.counters.clock_jumps == 2


def test_jitter_of_stamps_moves_no_sample():
    rng = np.random.default_rng(3)
    user, agent = voice(30.0, seed=1), voice(30.0, seed=2)
    plain = chunks("user", user, 16000) + chunks("agent", agent, 16000)
    jittered = [
        (s, (r, stamp + (int(rng.integers(-15, 15)) * MS if index else 0), index, *rest))
        for s, (r, stamp, index, *rest) in plain
    ]
    turns, counters = play(jittered)
    assert as_bytes(turns) == as_bytes(play(plain)[0])
    assert counters.drift_steps == counters.clock_jumps == 0


@pytest.mark.parametrize("ppm", [-300, 100, 300])
def test_drift_is_followed(ppm):
    """A device that says 16000 Hz and gives a little more or less stays aligned to its stamps."""
    seconds = 120
    real = 16000 * (1 + ppm * 1e-6)
    clicks = np.zeros(round(seconds * real), np.float32)
    times = np.arange(5, seconds - 1) + 0.5
    clicks[np.round(times * real).astype(int)] = 1.0
    user = [
        (T0 + round(i / real * NS), ("user", T0 + round(i / real * NS), i, 16000, clicks[i : i + 320]))
        for i in range(0, len(clicks), 320)
    ]
    turns, counters = play(user + chunks("agent", np.zeros(seconds * 16000, np.float32), 16000, 0.1))
    heard = [t.number + int(np.argmax(t.user_speech)) / 16000 for t in turns if t.user_speech.any()]
    assert len(heard) >= len(times) - 1
    assert np.abs(np.array(heard) - times[: len(heard)]).max() < 0.015
    assert counters.clock_jumps == 0
    assert counters.drift_steps > 0


def test_a_new_stream_id_restarts_the_count():
    first, second = voice(1.5, seed=1), voice(1.5, seed=2)
    turns, counters = play(
        chunks("user", first, 16000, stream_id=1)
        + chunks("user", second, 16000, start=T0 + 1500 * MS, stream_id=2)
        + chunks("agent", voice(3.0), 16000)
    )
    np.testing.assert_array_equal(np.concatenate([t.user_speech for t in turns]), np.concatenate([first, second]))
    assert counters.streams == 3
    assert counters.lost_user == 0


def test_a_source_that_restarts_under_the_same_id_is_placed_by_its_stamp():
    first, second = voice(3.0, seed=1), voice(2.0, seed=2)
    turns, counters = play(
        chunks("user", first, 16000)
        + chunks("user", second, 16000, start=T0 + 3 * NS)
        + chunks("agent", voice(5.0), 16000)
    )
    np.testing.assert_array_equal(np.concatenate([t.user_speech for t in turns]), np.concatenate([first, second]))
    assert counters.lost_user == 0


def test_speech_that_ended_is_not_lost_samples():
    """A synthesiser that sends audio only while it speaks, each utterance its own stream."""
    turns, counters = play(
        chunks("user", voice(5.0), 16000)
        + chunks("agent", voice(0.7), 16000, start=T0 + 300 * MS, stream_id=1, end=True)
        + chunks("agent", voice(0.5), 16000, start=T0 + 3200 * MS, stream_id=2, end=True)
    )
    assert counters.lost_agent == 0
    assert turns[0].agent_speech[4800:].all()
    assert not turns[1].agent_speech.any()
    assert not turns[3].agent_speech[:3200].any()
    assert turns[3].agent_speech[3200:11200].all()


@pytest.mark.parametrize("jump", [3600 * NS, -3600 * NS, 2 * NS])
def test_a_clock_change_loses_nothing_and_moves_the_stamps(jump):
    user, agent = voice(6.0, seed=1), voice(6.0, seed=2)
    items = sorted(chunks("user", user, 16000) + chunks("agent", agent, 16000), key=lambda item: item[0])
    moved = [(s, (r, stamp + jump * (s > T0 + 2500 * MS), *rest)) for s, (r, stamp, *rest) in items]
    builder = TurnBuilder()
    feed(builder, moved)
    turns = builder.pop() + builder.finish()
    assert [t.number for t in turns] == list(range(6))
    np.testing.assert_array_equal(np.concatenate([t.user_speech for t in turns]), user)
    np.testing.assert_array_equal(np.concatenate([t.agent_speech for t in turns]), agent)
    assert [t.stamp_ns - T0 for t in turns] == [0, NS, 2 * NS + jump, 3 * NS + jump, 4 * NS + jump, 5 * NS + jump]
    assert builder.counters.clock_jumps == 2
    assert builder.counters.lost_user == builder.counters.lost_agent == 0


def test_speakers_with_foreign_clocks_still_talk():
    """The agent's host lives an hour ahead: its voice is placed where it arrives."""
    user, agent = voice(4.0, seed=1), voice(4.0, seed=2)
    items = sorted(
        chunks("user", user, 16000) + [(s + 1, x) for s, x in chunks("agent", agent, 16000)], key=lambda i: i[0]
    )
    builder = TurnBuilder()
    for _, (role, stamp, *rest) in items:
        builder.add_audio(role, stamp + (3600 * NS if role == "agent" else 0), *rest)
    turns = builder.pop() + builder.finish()
    assert [t.stamp_ns for t in turns] == [T0 + k * NS for k in range(4)]
    np.testing.assert_array_equal(np.concatenate([t.agent_speech for t in turns]), agent)
    assert builder.counters.foreign_clocks == 1


def test_a_stream_always_late_is_heard_again():
    """Its clock is three seconds behind: dropping all of it for ever would make the robot deaf."""
    user, agent = voice(12.0, seed=1), voice(12.0, seed=2)
    items = sorted(chunks("user", user, 16000) + chunks("agent", agent, 16000), key=lambda i: i[0])
    builder = TurnBuilder()
    for s, (role, stamp, *rest) in items:
        builder.add_audio(role, stamp - (3 * NS if role == "user" and s > T0 + 2 * NS else 0), *rest)
    turns = builder.pop() + builder.finish()
    assert turns[-2].user_speech.all()
    assert [t.number for t in turns] == list(range(len(turns)))


def test_a_suspended_machine_does_not_flood_with_silent_turns():
    user, agent = voice(4.0, seed=1), voice(4.0, seed=2)
    hour = 3600
    items = chunks("user", user[:32000], 16000) + chunks("agent", agent[:32000], 16000)
    items += chunks("user", user[32000:], 16000, first_index=32000 + hour * 16000)
    items += chunks("agent", agent[32000:], 16000, first_index=32000 + hour * 16000)
    turns, counters = play(items)
    assert len(turns) <= 5
    assert turns[-1].stamp_ns > T0 + hour * NS
    assert counters.pauses >= 1
    heard = np.concatenate([t.user_speech for t in turns])
    assert np.count_nonzero(heard) >= 63000


def test_numbers_go_on_after_all_ended_and_began_again():
    turns, counters = play(
        chunks("user", voice(1.4), 16000, stream_id=1, end=True)
        + chunks("agent", voice(1.4), 16000, stream_id=1, end=True)
        + chunks("user", voice(2.0), 16000, start=T0 + 100 * NS, stream_id=2, end=True)
        + chunks("agent", voice(2.0), 16000, start=T0 + 100 * NS, stream_id=2, end=True)
    )
    assert [t.number for t in turns] == [0, 1, 2, 3]
    assert [(t.stamp_ns - T0) // NS for t in turns] == [0, 1, 100, 101]
    assert counters.pauses == 1
    assert counters.lost_user == counters.lost_agent == 0


HOSTILE = [
    ("not finite", {"samples": np.array([0.0, np.nan], np.float32)}),
    ("not finite", {"samples": np.array([0.0, np.inf], np.float32)}),
    ("[-1, 1]", {"samples": np.array([0.0, 12000.0], np.float32)}),
    ("empty", {"samples": np.zeros(0, np.float32)}),
    ("array of numbers", {"samples": "hello"}),
    ("array of numbers", {"samples": [[1.0], [1.0, 2.0]]}),
    ("array of numbers", {"samples": np.array([object()])}),
    ("16- or 32-bit", {"samples": np.zeros(10, np.uint8)}),
    ("neither [n] nor", {"samples": np.zeros((2, 2, 2), np.float32)}),
    ("channels", {"samples": np.zeros((10, 0), np.float32)}),
    ("channels", {"samples": np.zeros((10, 65), np.float32)}),
    ("sample rate", {"rate": 0}),
    ("sample rate", {"rate": -16000}),
    ("sample rate", {"rate": 10**9}),
    ("sample rate", {"rate": 16000.5}),
    ("sample rate", {"rate": float("nan")}),
    ("sample index", {"sample_index": -1}),
    ("sample index", {"sample_index": None}),
    ("stamp", {"stamp_ns": 2**70}),
    ("stamp", {"stamp_ns": "now"}),
    ("stream id", {"stream_id": -3}),
    ("role", {"role": "cat"}),
]


@pytest.mark.parametrize(("reason", "change"), HOSTILE)
def test_hostile_audio_is_refused_counted_and_changes_nothing(reason, change):
    items = sorted(chunks("user", voice(2.0, seed=1), 16000) + chunks("agent", voice(2.0, seed=2), 16000))
    expected = as_bytes(play(items)[0])
    builder = TurnBuilder()
    for number, item in enumerate(items):
        feed(builder, [item])
        if number == 60:
            good = {
                "role": "user",
                "stamp_ns": T0 + 700 * MS,
                "sample_index": 11200,
                "rate": 16000,
                "samples": voice(0.02),
            }
            said = builder.add_audio(**(good | change))
            assert reason in said
            assert builder.counters.rejected == {said: 1}
            assert builder.counters.as_dict()[f"rejected: {said}"] == 1
    assert as_bytes(builder.pop() + builder.finish()) == expected


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("rate", {"rate": 0.0}),
        ("rate", {"rate": float("nan")}),
        ("rate", {"rate": 1e9}),
        ("rate", {"rate": None}),
        ("[n, 56]", {"frames": np.zeros((3, 55), np.float32)}),
        ("[n, 56]", {"frames": np.zeros(56, np.float32)}),
        ("no frames", {"frames": np.zeros((0, 56), np.float32)}),
        ("floats", {"frames": np.zeros((2, 56), np.int64)}),
        ("impossible", {"frames": np.full((2, 56), np.inf, np.float32)}),
        ("impossible", {"frames": np.full((2, 56), 1e30, np.float64)}),
        ("far from", {"stamp_ns": T0 + 10_000 * NS}),
        ("stamp", {"stamp_ns": 1.5}),
    ],
)
def test_hostile_motion_is_refused_and_never_gets_out(reason, change):
    builder = TurnBuilder()
    feed(builder, chunks("user", voice(0.5), 16000))
    good = {"stamp_ns": T0 + 100 * MS, "rate": 25.0, "frames": np.zeros((2, 56), np.float32)}
    assert reason in builder.add_motion(**(good | change))
    feed(builder, chunks("user", voice(0.5), 16000, first_index=8000))
    for turn in builder.finish():
        assert turn.user_motion is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_input_raises_and_memory_is_bounded(data):
    builder = TurnBuilder(max_ahead=5.0)
    numbers = st.one_of(
        st.integers(-(2**65), 2**65), st.integers(0, 10**6), st.sampled_from([T0, T0 + NS, T0 - NS, T0 + 9 * NS])
    )
    last = -1
    for _ in range(data.draw(st.integers(1, 40))):
        what = data.draw(st.integers(0, 5))
        if what == 0:
            builder.advance(data.draw(numbers))
        elif what == 1:
            builder.add_motion(data.draw(numbers), data.draw(st.floats()), frames_at([T0, T0 + 1]))
        elif what == 2:
            builder.drop_agent()
        else:
            builder.add_audio(
                data.draw(st.sampled_from(["user", "agent"])),
                data.draw(numbers),
                data.draw(numbers),
                data.draw(st.sampled_from([8000, 16000, 48000])),
                voice(data.draw(st.sampled_from([0.0, 0.001, 0.5, 3.0]))),
                data.draw(st.integers(0, 3)),
                data.draw(st.booleans()),
            )
        for turn in builder.pop():
            assert turn.number == last + 1
            last = turn.number
            assert len(turn.user_speech) == len(turn.agent_speech) == 16000
            assert np.isfinite(turn.user_speech).all()
    builder.finish()
    held = sum(len(s.samples._data) for track in builder._tracks.values() for s in track.streams)
    assert held <= 16 * 25 * 48000


def test_memory_stays_flat_in_a_long_conversation():
    builder = TurnBuilder()
    silence = np.zeros(1600, np.float32)
    sizes = []
    for i in range(6000):  # ten minutes
        for role in ("user", "agent"):
            builder.add_audio(role, T0 + i * 100 * MS, i * 1600, 16000, silence)
        builder.add_motion(T0 + i * 100 * MS, 25.0, np.zeros((3, 56), np.float32))
        builder.pop()
        if i % 1000 == 999:
            sizes.append(
                sum(s.samples._data.nbytes for t in builder._tracks.values() for s in t.streams)
                + len(builder._motion._times)
            )
    assert builder.counters.turns == 600 - 1 or builder.counters.turns == 600
    assert max(sizes) < 600_000
    assert sizes[-1] <= sizes[0] * 1.5


def test_turns_nobody_takes_do_not_pile_up():
    builder = TurnBuilder(turn_seconds=0.04)
    for i in range(600):
        for role in ("user", "agent"):
            builder.add_audio(role, T0 + i * 40 * MS, i * 640, 16000, np.zeros(640, np.float32))
    assert len(builder.pop()) <= 256
    assert builder.counters.unread_turns > 300


# Motion.


@pytest.mark.parametrize("rate", [15.0, 29.97, 30.0, 50.0, 60.0])
def test_motion_of_any_rate_follows_the_time(rate):
    turns, _ = play(chunks("user", voice(3.0), 16000) + chunks("agent", voice(3.0), 16000) + motion(3.0, rate, each=3))
    wanted = frames_at(T0 + 40 * MS * np.arange(75))
    made = np.concatenate([t.user_motion for t in turns])
    assert np.abs(made - wanted)[1:70].max() < (0.06 if rate == 15 else 0.02)


def test_rotations_are_interpolated_on_the_sphere():
    a, b = np.array([0.0, 1.2, 0.9]), np.array([0.9, -1.1, 0.3])
    frames = np.zeros((2, 56), np.float32)
    frames[0, 53:], frames[1, 53:] = a, b
    builder = TurnBuilder(turn_seconds=0.12, tracker_timeout=0.5)
    builder.add_audio("user", T0, 0, 16000, voice(0.12), end=True)
    builder.add_audio("agent", T0, 0, 16000, voice(0.12), end=True)
    builder.add_motion(T0, 1000 / 80, frames)
    (turn,) = builder.finish()
    got = Rotation.from_rotvec(turn.user_motion[1, 53:])
    there, back = Rotation.from_rotvec(a).inv() * got, got.inv() * Rotation.from_rotvec(b)
    assert there.magnitude() == pytest.approx(back.magnitude(), abs=1e-5)
    whole = (Rotation.from_rotvec(a).inv() * Rotation.from_rotvec(b)).magnitude()
    assert there.magnitude() + back.magnitude() == pytest.approx(whole, abs=1e-5)


def test_a_lost_tracker_is_bridged_then_not_tracked():
    items = [
        m
        for m in motion(3.0)
        if not T0 + 300 * MS <= m[0] < T0 + 420 * MS and not T0 + 1200 * MS <= m[0] < T0 + 2600 * MS
    ]
    turns, _ = play(chunks("user", voice(3.0), 16000) + chunks("agent", voice(3.0), 16000) + items)
    tracked = np.isfinite(np.concatenate([t.user_motion for t in turns])).all(axis=1)
    assert tracked[:30].all()  # 120 ms bridged
    assert tracked[30:35].all()  # held for tracker_timeout after the last frame
    assert not tracked[37:58].any()
    assert tracked[65:].all()


def test_parts_are_tracked_by_themselves():
    frames = frames_at(T0 + 40 * MS * np.arange(25))
    frames[:, :50] = np.nan
    frames[10:, 50:53] = np.nan
    builder = TurnBuilder()
    builder.add_audio("user", T0, 0, 16000, voice(1.0), end=True)
    builder.add_motion(T0, 25.0, frames)
    (turn,) = builder.finish()
    assert np.isnan(turn.user_motion[:, :50]).all()
    assert np.isfinite(turn.user_motion[:10, 50:53]).all()
    assert np.isnan(turn.user_motion[20:, 50:53]).all()
    assert np.isfinite(turn.user_motion[:, 53:]).all()


@pytest.mark.parametrize("begins", [0, 15, 400])
def test_a_turn_does_not_wait_for_frames_from_before_the_tracker_began(begins):
    # A player's clock stands still shortly after the turn's end until the turn is answered: nothing becomes late.
    sound = chunks("user", voice(1.1), 16000) + chunks("agent", voice(1.1), 16000)
    frames = motion(1.1 - begins * 1e-3, start=T0 + begins * MS)
    builder = TurnBuilder(max_lateness=0.5)
    feed(builder, sorted(sound + frames, key=lambda item: item[0]))
    (turn,) = builder.pop()
    assert np.isfinite(turn.user_motion[-15:]).all()
    # But a frame that is lost among the others may still come, until the others are `max_lateness` beyond it.
    builder = TurnBuilder(max_lateness=0.5)
    feed(builder, sorted([*sound, *frames[:-8], *frames[-7:]], key=lambda item: item[0]))
    assert builder.pop() == []


def test_frames_lost_in_the_middle_of_a_turn_are_not_waited_for():
    """A player's clock stands still until the turn is answered, so `max_lateness` after the end never comes."""
    sound = chunks("user", voice(1.02), 16000) + chunks("agent", voice(1.02), 16000)
    frames = [item for item in motion(1.02) if not T0 + 300 * MS <= item[0] < T0 + 800 * MS]
    builder = TurnBuilder(max_lateness=0.05)
    feed(builder, sorted(sound + frames, key=lambda item: item[0]))
    (turn,) = builder.pop()
    tracked = np.isfinite(turn.user_motion).all(axis=1)
    assert tracked[:8].all() and tracked[20:].all()
    assert not tracked[15:19].any()


@pytest.mark.parametrize("first", [5, 18, 24])
def test_a_tracker_that_says_it_saw_nobody_is_not_waited_for(first):
    """Frames from `first` on are missing up to the turn's end and beyond."""
    sound = chunks("user", voice(1.0), 16000) + chunks("agent", voice(1.0), 16000)
    builder = TurnBuilder()
    feed(builder, sorted(sound + motion(1.0)[:first], key=lambda item: item[0]))
    assert builder.pop() == []
    assert builder.end_motion_gap(T0 + 960 * MS) is None
    assert builder.pop() == []
    assert builder.end_motion_gap(T0 + 1021 * MS) is None  # one and a half frames after the last frame of 24
    (turn,) = builder.pop()
    np.testing.assert_array_equal(turn.user_motion[:first], frames_at(T0 + 40 * MS * np.arange(first)))
    np.testing.assert_array_equal(turn.user_motion[first], turn.user_motion[first - 1])  # held


def test_a_gap_that_ends_at_a_stray_stamp_settles_nothing():
    sound = chunks("user", voice(1.0), 16000) + chunks("agent", voice(1.0), 16000)
    builder = TurnBuilder()
    feed(builder, sorted(sound + motion(0.5), key=lambda item: item[0]))
    feed(builder, [motion(1.0, start=T0 + 30 * NS)[0]])
    assert builder.end_motion_gap(T0 + 30 * NS) is None
    assert builder.pop() == []
    assert builder.end_motion_gap(-1.5) == "stamp is not a whole number"


# Where a frame may be missing: in the middle of turns, around their ends, and (400 ms and more) for long.
GAPS = st.lists(st.tuples(st.integers(0, 2200), st.sampled_from([40, 80, 120, 200, 400, 600])), max_size=4)


def with_gaps(gaps, rate, phase, *, length=0.02, lateness=(0,), told=False):
    """Turns of chunks of this length [s] and of frames with gaps (start, length [ms]), each item so late [ms].

    :param told: in a gap, the tracker says every 20 ms that it sees nobody.
    """
    items = chunks("user", USER[: 3 * USER_RATE], USER_RATE, length)
    items += chunks("agent", voice(3.0, seed=2), 16000, length)
    items += [
        (at, item)
        for at, item in motion(3.0, rate=rate, start=T0 + phase * MS)
        if not any(begin <= (at - T0) / MS < begin + long for begin, long in gaps)
    ]
    seen = [at for at, item in items if item[0] == "motion"]
    for one, other in itertools.pairwise(seen) if told else ():
        first = one + round(1.5 * NS / rate) + MS
        items += [(at, ("gap", at)) for at in (*range(first, other, 20 * MS), other) if first < other]
    arrivals = [(s + lateness[i % len(lateness)] * MS, i, x) for i, (s, x) in enumerate(items)]
    builder = TurnBuilder()
    turns = []
    for _, _, item in sorted(arrivals, key=lambda arrival: arrival[:2]):
        feed(builder, [(0, item)])
        turns += builder.pop()
    return turns + builder.finish()


@settings(max_examples=60, deadline=None)
@given(
    gaps=GAPS,
    rate=st.sampled_from([25.0, 29.97, 30.0, 50.0]),
    phase=st.integers(0, 39),
    length=st.sampled_from([0.01, 0.02, 0.04]),
    lateness=st.lists(st.integers(0, 49), min_size=1, max_size=50),
)
def test_reordering_changes_no_byte_of_turns_with_motion_gaps(gaps, rate, phase, length, lateness):
    # A tracker that was silent for `tracker_timeout` when a turn began is not waited for: its first frames after that
    # belong to the turn if they come before the turn closes, so a gap must not end just before a turn's end.
    settled = [(b, n) for b, n in gaps if n <= 200 or (b + n) % 1000 < 850]
    joined = [
        (b, n) for b, n in settled if not any(b <= c + m + 100 and c <= b + n + 100 for c, m in settled if c != b)
    ]
    wanted = as_bytes(with_gaps(joined, rate, phase))
    assert as_bytes(with_gaps(joined, rate, phase, length=length, lateness=lateness)) == wanted
    assert as_bytes(with_gaps(joined, rate, phase, length=length, told=True)) == wanted


def test_without_a_tracker_there_is_no_motion():
    turns, _ = play(chunks("user", voice(2.0), 16000) + chunks("agent", voice(2.0), 16000))
    assert all(t.user_motion is None for t in turns)


def test_late_and_double_frames_are_counted():
    builder = TurnBuilder()
    items = chunks("user", voice(2.1), 16000) + chunks("agent", voice(2.1), 16000) + motion(2.1)
    feed(builder, sorted(items, key=lambda item: item[0]))
    builder.add_motion(T0 + 400 * MS, 25.0, np.zeros((1, 56), np.float32))
    builder.add_motion(T0 + 2040 * MS, 25.0, np.zeros((1, 56), np.float32))
    assert (builder.counters.late_frames, builder.counters.duplicate_frames) == (1, 1)


# Anticipatory mode.


def test_planned_turns_come_when_they_begin_with_the_agents_speech_alone():
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.0)
    agent = voice(4.0, seed=2)
    # The synthesiser is 1.5 s ahead.
    items = [(s, 1, x) for s, x in chunks("user", voice(4.0, seed=1), 16000)]
    items += [(s - 1500 * MS, 0, x) for s, x in chunks("agent", agent, 16000)]
    seen = []
    for at, _, item in sorted(items, key=lambda i: i[:2]):
        builder.add_audio(*item)
        seen += [(t, at) for t in builder.pop()]
    assert [(t.number, t.planned) for t, _ in seen[:6]] == [
        (0, True),
        (0, False),
        (1, True),
        (1, False),
        (2, True),
        (2, False),
    ]
    for turn, at in seen:
        start = T0 + turn.number * NS
        assert turn.stamp_ns == start
        np.testing.assert_array_equal(turn.agent_speech, agent[turn.number * 16000 : (turn.number + 1) * 16000])
        if turn.planned:
            assert not turn.user_speech.any()
            assert turn.user_motion is None
            assert start - 20 * MS <= at <= start + (70 if turn.number == 0 else 0) * MS
    assert builder.counters.planned_turns == 4


def anticipate(user_cuts, agent_cuts, lateness):
    user = [(s, 1, x) for s, x in chunks("user", USER, USER_RATE, cuts=sorted(user_cuts))]
    agent = [(s - 1500 * MS, 0, x) for s, x in chunks("agent", AGENT, AGENT_RATE, cuts=sorted(agent_cuts), end=True)]
    arrivals = [(s + lateness[i % len(lateness)] * MS, i, x) for i, (s, _, x) in enumerate(user + agent)]
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.0)
    turns = []
    for _, _, item in sorted(arrivals, key=lambda arrival: arrival[:2]):
        builder.add_audio(*item)
        turns += builder.pop()
    return as_bytes(turns + builder.finish())


ANTICIPATED = anticipate(range(441, len(USER), 441), range(320, len(AGENT), 320), [0])


@settings(max_examples=30, deadline=None)
@given(
    user_cuts=st.sets(st.integers(1, len(USER) - 1), max_size=80),
    agent_cuts=st.sets(st.integers(1, len(AGENT) - 1), max_size=80),
    lateness=st.lists(st.integers(0, 49), min_size=1, max_size=50),
)
def test_chunking_and_reordering_change_no_byte_of_planned_turns(user_cuts, agent_cuts, lateness):
    assert anticipate(user_cuts, agent_cuts, lateness) == ANTICIPATED
    assert [planned for _, _, planned, *_ in ANTICIPATED] == [True, False] * 4


def test_planned_turns_of_a_silent_agent_come_too():
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.0)
    feed(builder, chunks("user", voice(3.0), 16000))
    turns = builder.pop()
    assert [(t.number, t.planned) for t in turns] == [
        (0, True),
        (0, False),
        (1, True),
        (1, False),
        (2, True),
        (2, False),
        (3, True),
    ]
    assert not any(t.agent_speech.any() for t in turns)


def test_turns_may_be_planned_before_they_begin():
    """The user is heard up to then, so that no turn is missing in the history."""
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.2)
    agent, user = voice(6.0, seed=2), voice(4.0, seed=1)
    items = [(s, 1, x) for s, x in chunks("user", user, 16000)]
    items += [(s - 1500 * MS, 0, x) for s, x in chunks("agent", agent, 16000)]
    seen = []
    for at, _, item in sorted(items, key=lambda i: i[:2]):
        builder.add_audio(*item)
        seen += [(t, at - T0) for t in builder.pop()]
    assert [(t.number, t.planned) for t, _ in seen] == [(k // 2, k % 2 == 0) for k in range(len(seen))]
    planned = [(t, at) for t, at in seen if t.planned]
    assert [t.number for t, _ in planned] == [0, 1, 2, 3, 4]
    for turn, at in planned[1:]:
        assert turn.stamp_ns == T0 + turn.number * NS
        assert -20 * MS <= at - (turn.number * NS - 200 * MS) <= 0  # `at` is where the chunk begins
        np.testing.assert_array_equal(turn.agent_speech, agent[turn.number * 16000 : (turn.number + 1) * 16000])
    complete = [t for t, _ in seen if not t.planned]
    assert [t.number for t in complete] == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.concatenate([t.agent_speech for t in complete]), agent[:64000])
    heard = np.concatenate([t.user_speech for t in complete])
    assert not heard[:3200].any()
    np.testing.assert_array_equal(heard[3200:], user[: 64000 - 3200])


def test_what_is_seen_of_the_user_is_as_late_as_what_is_heard():
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.2)
    frames = np.zeros((50, 56), np.float32)
    frames[:, 0] = np.arange(50)
    builder.add_motion(T0, 25.0, frames)
    feed(builder, chunks("agent", voice(4.0, seed=2), 16000, 0.5) + chunks("user", voice(2.0, seed=1), 16000))
    seen = next(t for t in builder.pop() if t.number == 1 and not t.planned).user_motion
    np.testing.assert_array_equal(seen[:, 0], np.arange(20, 45))


def test_without_a_user_the_clock_tells_when_to_plan():
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.2)
    feed(builder, chunks("agent", voice(5.0, seed=2), 16000, 0.5))
    seen = []
    for step in range(400):
        builder.advance(T0 + step * 10 * MS)
        seen += [(t.number, step * 10) for t in builder.pop() if t.planned]
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4]
    for number, at in seen[1:]:
        assert -200 <= at - number * 1000 <= -100  # a turn nobody speaks in waits for its `max_lateness`


def test_a_plan_waits_for_speech_that_is_on_its_way():
    """After a delay both speakers' chunks wait to be taken, and the user's may be taken first."""
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.0)
    agent = voice(3.0, seed=2)
    speech = chunks("agent", agent, 16000)
    feed(builder, speech[:2])
    feed(builder, chunks("user", voice(0.5, seed=1), 16000))
    assert builder.pop() == []
    for look in range(5):  # ten chunks of 20 ms in 50 ms: the speech comes in at four times real time
        builder.advance(T0, steady_ns=look * 50 * MS)
        feed(builder, speech[2 + 10 * look : 12 + 10 * look])
    (turn,) = builder.pop()
    assert turn.planned
    np.testing.assert_array_equal(turn.agent_speech, agent[:16000])


@pytest.mark.parametrize("pace", [0, 1, 2])
def test_a_plan_does_not_wait_for_speech_that_comes_too_slowly(pace):
    """`pace` chunks of 20 ms in 50 ms: up to 0.8 of real time."""
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.0)
    agent = voice(3.0, seed=2)
    speech = chunks("agent", agent, 16000)
    feed(builder, speech[:20])
    for look in range(3):
        builder.advance(T0, steady_ns=look * 50 * MS)
        feed(builder, speech[20 + pace * look : 20 + pace * (look + 1)])
    feed(builder, chunks("user", voice(0.2, seed=1), 16000))
    assert builder.pop() == []
    builder.advance(T0, steady_ns=150 * MS)
    (turn,) = builder.pop()
    assert turn.planned
    known = (20 + 3 * pace) * 320
    np.testing.assert_array_equal(turn.agent_speech[:known], agent[:known])
    assert not turn.agent_speech[known:].any()


def test_nothing_is_planned_when_all_have_ended():
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.5)
    feed(builder, chunks("user", voice(1.5), 16000, end=True) + chunks("agent", voice(1.5), 16000, end=True))
    for step in range(2000):
        builder.advance(step * 10 * MS)
    given = [(t.number, t.planned) for t in builder.pop()]
    assert sorted(given) == [(0, False), (0, True), (1, False), (1, True)]


def test_an_utterance_may_begin_inside_a_planned_turn():
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.0)
    agent = voice(2.0, seed=2)
    feed(builder, chunks("agent", agent, 16000, 0.5, start=T0 + 2400 * MS, end=True))
    seen = []
    for item in chunks("user", voice(4.0, seed=1), 16000):
        feed(builder, [item])
        seen += [(t, item[0] - T0) for t in builder.pop()]
    turn, at = next((t, at) for t, at in seen if t.planned and t.number == 2)
    assert at < 2 * NS
    assert not turn.agent_speech[:6400].any()
    np.testing.assert_array_equal(turn.agent_speech[6400:], agent[:9600])


def test_speech_made_ahead_does_not_close_turns():
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.0)
    feed(builder, chunks("agent", voice(20.0), 16000, 0.5, start=T0 + NS))
    assert builder.pop() == []
    user = voice(3.0, seed=1)
    feed(builder, chunks("user", user, 16000))
    complete = [t for t in builder.pop() if not t.planned]
    np.testing.assert_array_equal(np.concatenate([t.user_speech for t in complete]), user)


def test_an_interrupted_agent_falls_silent():
    builder = TurnBuilder(mode="anticipatory", planning_lead=0.0)
    feed(builder, chunks("agent", voice(10.0, seed=2), 16000, 0.5))
    user = chunks("user", voice(5.0, seed=1), 16000)
    feed(builder, user[:120])  # 2.4 s
    builder.drop_agent()
    assert builder.add_audio("agent", T0 + 10 * NS, 160000, 16000, voice(1.0)) == "the stream was dropped"
    feed(builder, user[120:])
    complete = [t for t in builder.pop() if not t.planned]
    assert complete[2].agent_speech[: round(0.3 * 16000)].any()
    assert not complete[2].agent_speech[round(0.4 * 16000) :].any()
    assert not complete[3].agent_speech.any()
    assert builder.counters.lost_agent == 0
    builder.add_audio("agent", T0 + 5200 * MS, 0, 16000, voice(0.5), stream_id=9, end=True)
    feed(builder, chunks("user", voice(1.0, seed=1), 16000, first_index=80000))
    assert [t for t in builder.pop() if not t.planned][-1].agent_speech.any()


@pytest.mark.parametrize(
    "options",
    [
        {"turn_seconds": 0.0},
        {"turn_seconds": 0.99},
        {"max_lateness": -1.0},
        {"mode": "psychic"},
        {"max_ahead": float("nan")},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TurnBuilder(**options)


def test_first_number():
    turns, _ = play(chunks("user", voice(2.0), 16000), first_number=41)
    assert [t.number for t in turns] == [41, 42]


def test_turns_need_neither_torch_nor_ros():
    code = (
        "import sys, timar_ros.streaming.turns.turn_builder; "
        "print(sorted({'torch', 'rclpy', 'transformers'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"
