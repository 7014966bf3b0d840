"""Chunks that were on their way when the agent was interrupted."""

from __future__ import annotations

import numpy as np

from timar_ros.streaming.codec import Audio
from timar_ros.streaming.interruption import MOST_STREAMS, Interruption

RATE = 16000
NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def chunk(seconds, index_seconds=None, stream=1, length=0.1):
    """A chunk whose first sample sounds some seconds after NOW."""
    index = seconds if index_seconds is None else index_seconds
    samples = np.zeros((round(length * RATE), 1), np.float32)
    return Audio(NOW + round(seconds * SECOND), stream, round(index * RATE), RATE, samples, end=False)


def test_speech_ahead_that_was_on_its_way_stays_silent():
    interruption = Interruption()
    for k in range(5):
        assert not interruption.covers(chunk(k / 10), NOW)
    interruption.begin(NOW + SECOND // 5)
    assert interruption.covers(chunk(0.1), NOW)  # before the interruption
    for k in range(5, 40):  # its sender published these before it heard of the interruption
        assert interruption.covers(chunk(k / 10), NOW)


def test_later_speech_sounds_in_the_same_stream_or_another():
    for later in (chunk(2.0, stream=2), chunk(2.0, 0.0), chunk(2.0, 0.5)):
        interruption = Interruption()
        assert not interruption.covers(chunk(0.4), NOW)
        interruption.begin(NOW)
        assert not interruption.covers(later, NOW)
        assert not interruption.covers(later, NOW)


def test_a_microphone_goes_on_after_an_interruption():
    interruption = Interruption()
    assert not interruption.covers(chunk(0.0), NOW + SECOND // 10)
    interruption.begin(NOW + SECOND // 10)
    assert not interruption.covers(chunk(0.1), NOW + SECOND // 5)


def test_a_clock_set_back_lifts_the_interruption():
    interruption = Interruption()
    interruption.begin(NOW)
    assert interruption.covers(chunk(-20.0), NOW)
    assert not interruption.covers(chunk(-20.0), NOW - 20 * SECOND)


def test_memory_is_bounded():
    interruption = Interruption()
    for stream in range(10 * MOST_STREAMS):
        assert not interruption.covers(chunk(1.0, stream=stream), NOW)
        if stream % 3 == 0:
            interruption.begin(NOW)
    assert len(interruption._streams) <= MOST_STREAMS
    assert len(interruption._ended) <= MOST_STREAMS
