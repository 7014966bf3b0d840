"""Speech on its way out: stamps, streams, cancel, and what the loudspeaker played."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timar_ros.audio.speech_queue import HORIZON, SpeechQueue, mono_pcm, needed_lead
from timar_ros.errors import UserError

RATE = 24000
NS = 10**9
START = 1_700_000_000 * NS
LEAD = 0.5


def ramp(seconds: float) -> np.ndarray:
    return np.linspace(-0.9, 0.9, round(seconds * RATE), dtype=np.float32)


def drained(queue: SpeechQueue, now_ns: int, seconds: float) -> list:
    """What comes out while time passes in steps of 50 ms."""
    return [c for k in range(round(seconds / 0.05) + 1) for c in queue.due(now_ns + k * NS // 20)]


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(st.lists(st.integers(1, 30000), min_size=1, max_size=20))
def test_bursts_of_any_length_become_one_stream_without_gap_or_loss(cuts: list[int]) -> None:
    """Faster than real time, as a synthesizer streams: the stamps are those of the whole utterance."""
    speech = ramp(2.0)
    queue = SpeechQueue(LEAD)
    edges = [0, *np.minimum(np.cumsum(cuts), len(speech)).tolist(), len(speech)]
    for first, last in itertools.pairwise(edges):
        queue.say(speech[first:last], RATE)
    queue.finish()
    chunks = queue.due(START)
    np.testing.assert_array_equal(np.concatenate([c.samples for c in chunks]), speech)
    assert len({c.stream_id for c in chunks}) == 1
    assert [c.end for c in chunks] == [False] * (len(chunks) - 1) + [True]
    for chunk in chunks:
        assert chunk.stamp_ns == START + round(LEAD * NS) + round(chunk.sample_index * NS / RATE)


def test_a_minute_is_published_little_by_little() -> None:
    """`audio_sink` holds half a minute: a whole answer at once would be cut."""
    queue = SpeechQueue(LEAD)
    queue.say(ramp(60.0), RATE)
    queue.finish()
    first = queue.due(START)
    assert max(c.stamp_ns for c in first) - START <= HORIZON * NS
    rest = drained(queue, START, 60.0)
    assert sum(len(c.samples) for c in first + rest) == 60 * RATE
    assert len({c.stream_id for c in first + rest}) == 1


def test_speech_that_stalls_goes_on_in_another_stream_of_the_same_utterance() -> None:
    queue = SpeechQueue(LEAD)
    number = queue.say(ramp(0.3), RATE)
    before = queue.due(START)
    later = START + 2 * NS
    assert [c.end for c in queue.due(later)] == [True]
    assert queue.say(ramp(0.2), RATE) == number
    after = queue.due(later)
    assert after[0].stream_id != before[0].stream_id
    assert after[0].stamp_ns == later + round(LEAD * NS)
    queue.hear(after[0].stream_id, 0, 480, after[0].stamp_ns)
    played = queue.played(after[0].stamp_ns + NS // 50)
    assert (played.utterance, played.seconds) == (number, pytest.approx(0.32))


def test_utterances_follow_each_other_and_another_rate_is_another_stream() -> None:
    queue = SpeechQueue(LEAD)
    first = queue.say(ramp(1.0), RATE)
    queue.finish()
    second = queue.say(np.zeros(8000, np.float32), 16000)
    chunks = queue.due(START)
    assert second == first + 1
    begins = [next(c.stamp_ns for c in chunks if c.rate == rate) for rate in (RATE, 16000)]
    assert begins == [START + round(LEAD * NS), START + round((LEAD + 1.0) * NS)]


def test_cancel_forgets_what_waits_and_the_next_utterance_begins_anew() -> None:
    queue = SpeechQueue(LEAD)
    queue.say(ramp(20.0), RATE)
    stream = queue.due(START)[0].stream_id
    queue.cancel()
    assert queue.empty
    assert not queue.due(START + NS)
    queue.say(ramp(0.1), RATE)
    again = queue.due(START + NS)
    assert again[0].stream_id != stream
    assert again[0].stamp_ns == START + NS + round(LEAD * NS)


def test_played_says_what_was_heard_and_not_what_was_made() -> None:
    queue = SpeechQueue(LEAD)
    number = queue.say(ramp(10.0), RATE)
    chunks = queue.due(START)
    assert queue.played(START).seconds == 0.0
    for chunk in chunks[:5]:
        assert queue.hear(chunk.stream_id, chunk.sample_index, len(chunk.samples), chunk.stamp_ns)
    amid = chunks[4].stamp_ns + NS // 100
    assert queue.played(amid).seconds == pytest.approx(0.09)
    assert queue.played(amid).speaking
    after = queue.played(amid + NS)
    assert (after.utterance, after.seconds, after.speaking) == (number, pytest.approx(0.1), False)
    assert not queue.hear(12345, 0, 480, START)  # another client's


def test_audio_of_all_usual_kinds_is_taken() -> None:
    wanted = np.array([0.5, -0.25], np.float32)
    whole = (wanted * 32768).astype(np.int16)
    for samples in (wanted.astype(np.float64), whole, whole.tobytes(), np.stack([wanted, wanted], axis=1)):
        np.testing.assert_array_equal(mono_pcm(samples, RATE), wanted)


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        ([0.0, float("nan")], RATE, "not finite"),
        (np.zeros(3, np.int32), RATE, "float samples"),
        (np.zeros((1, 2, 3), np.float32), RATE, "shape"),
        (b"abc", RATE, "even number"),
        ([0.0], 0, "whole number of Hz"),
        ([0.0], 16000.5, "whole number of Hz"),
    ],
)
def test_what_is_no_audio_is_refused_in_one_line(samples: object, rate: object, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        mono_pcm(samples, rate)  # type: ignore[arg-type]


def test_the_lead_by_mode() -> None:
    values = {"turn_seconds": 1.0, "planning_lead": 0.24, "look_ahead": 0.4}
    leads = [needed_lead(mode, **values) for mode in ("reactive", "rolling", "anticipatory")]
    assert leads == pytest.approx([0.1, 0.5, 1.34])
