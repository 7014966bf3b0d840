"""Sound devices: the clocks with simulated drift, the devices with a real PulseAudio where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from timar_ros.audio.output_device import JUMP_SECONDS, Follower, Timeline
from timar_ros.audio.timing import SampleClock

SECOND = 1_000_000_000


def readings(rate: float, blocks: int, size: int, jitter: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sample numbers and the times [ns] at which a device of true ``rate`` reports them, late by up to ``jitter`` s."""
    index = np.arange(blocks) * size
    late = np.random.default_rng(seed).exponential(jitter / 4, blocks).clip(0, jitter)
    return index, (1_000 * SECOND + index / rate * 1e9 + late * 1e9).astype(np.int64)


def test_sample_clock_removes_jitter_and_finds_the_true_rate() -> None:
    rate = 48000 * (1 + 150e-6)
    index, seen = readings(rate, 6000, 480, jitter=0.002)
    clock = SampleClock(48000)
    filtered = np.array([clock.update(int(i), int(t)) for i, t in zip(index, seen, strict=True)])
    true = 1_000 * SECOND + index / rate * 1e9
    error = (filtered - true)[3000:]
    assert np.ptp(error) < 0.4e6  # jitter of 2 ms comes out below 0.4 ms
    assert clock.rate == pytest.approx(rate, rel=20e-6)
    assert clock.resets == 0


def test_sample_clock_starts_anew_after_a_leap() -> None:
    clock = SampleClock(16000)
    for block in range(100):
        clock.update(block * 320, block * 20_000_000)
    assert clock.settled
    after = clock.update(100 * 320, 100 * 20_000_000 + 3 * SECOND)
    assert after == 100 * 20_000_000 + 3 * SECOND
    assert clock.resets == 1


def test_sample_clock_waits_for_a_waking_device() -> None:
    clock = SampleClock(16000)
    for block in range(10):  # each reading 50 ms off the last
        clock.update(block * 320, block * 70_000_000)
        assert not clock.settled
    for block in range(10, 40):
        clock.update(block * 320, 10 * 70_000_000 + (block - 10) * 20_000_000)
    assert clock.settled


def play(
    drift: float, seconds: int = 30, cut: tuple[float, float] | None = None
) -> tuple[np.ndarray, Follower, np.ndarray]:
    """A 440 Hz tone at 16 kHz on a 48 kHz device whose crystal is off by ``drift``."""
    rate, start = 48000, 1_000 * SECOND
    timeline = Timeline(16000)
    follower = Follower(timeline, rate)
    tone = np.sin(2 * np.pi * 440 * np.arange(16000 * seconds) / 16000).astype(np.float32)
    sent, heard, out, errors = 0, float(start), [], []
    for _ in range((seconds - 1) * 100):
        while sent < len(tone) and start + sent / 16000 * 1e9 < heard + 0.3 * SECOND:
            at = sent / 16000
            if cut is None or not cut[0] <= at < cut[1]:
                timeline.add(round(start + at * 1e9), tone[sent : sent + 320])
            sent += 320
        out.append(follower.block(480, round(heard)))
        errors.append(follower.counters.error_s)
        heard += 480 / (rate * (1 + drift)) * 1e9
    return np.concatenate(out), follower, np.array(errors)


@pytest.mark.parametrize("drift", [-300e-6, 0.0, 80e-6, 300e-6])
def test_playback_follows_a_drifting_card_without_clicks(drift: float) -> None:
    out, follower, errors = play(drift)
    assert follower.counters.jumps == 0
    assert np.abs(errors[100:]).max() < 0.005  # the bar: under 5 ms
    curvature = np.abs(np.diff(out[4800:], 2)).max()
    assert curvature < 1.1 * (2 * np.pi * 440 / 48000) ** 2  # no more than the tone's own: no click


def test_playback_keeps_its_time_over_a_gap() -> None:
    out, follower, errors = play(100e-6, seconds=20, cut=(5.0, 7.5))
    assert np.abs(errors[100:]).max() < 0.005
    assert np.abs(out[48000 * 6 : 48000 * 7]).max() == 0.0
    tail = out[48000 * 12 : 48000 * 13]
    expected = np.sin(2 * np.pi * 440 * (np.arange(len(tail)) / (48000 * (1 + 100e-6)) + 12 / (1 + 100e-6)))
    assert np.corrcoef(tail, expected)[0, 1] > 0.8  # a quarter of a millisecond is 0.77 at 440 Hz
    assert follower.counters.silent_samples >= 2.4 * 16000


def test_playback_jumps_when_far_off() -> None:
    timeline = Timeline(16000)
    follower = Follower(timeline, 48000)
    timeline.add(0, np.ones(16000, np.float32))
    follower.block(480, 0)
    follower.block(480, round((JUMP_SECONDS + 0.1) * SECOND))
    assert follower.counters.jumps == 1


def test_timeline_is_bounded_and_forgets_on_clear() -> None:
    timeline = Timeline(100, seconds=1.0)
    for second in range(3):
        timeline.add(second * SECOND, np.full(100, second + 1, np.float32))
    assert timeline.dropped_samples == 200
    samples, known = timeline.take(2 * SECOND, 50)
    assert known == 50
    assert (samples == 3).all()
    timeline.clear()
    assert timeline.take(2.5 * SECOND, 50)[1] == 0


def test_timeline_places_samples_between_silence() -> None:
    timeline = Timeline(1000)
    timeline.add(1 * SECOND, np.ones(10, np.float32))
    samples, known = timeline.take(1 * SECOND - 5_000_000, 20)
    assert known == 10
    assert samples.tolist() == [0.0] * 5 + [1.0] * 10 + [0.0] * 5
