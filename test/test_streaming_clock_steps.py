"""Which stamps are a step of a clock, which are stray, and which are a pause or a delay."""

from __future__ import annotations

import pytest

from timar_ros.streaming.clock_steps import NS, ClockSteps, near, spoken

HOUR, YEAR, FRAME = 3600 * NS, 31557600 * NS, NS // 25


def placed(steps, events, counted=False):
    return [
        (p.time_ns, p.verdict)
        for p in (steps.place(stamp, FRAME, arrived, counted=counted) for stamp, arrived in events)
    ]


@pytest.mark.parametrize("step", [-5 * NS, -2 * NS, 30 * NS, HOUR, -HOUR, 50 * YEAR, -50 * YEAR])
@pytest.mark.parametrize("with_arrival", [True, False])
def test_a_step_is_taken_out(step, with_arrival):
    steps, start = ClockSteps(), 60 * YEAR
    events = [
        (start + k * FRAME + (step if k >= 10 else 0), start + k * FRAME if with_arrival else None) for k in range(20)
    ]
    found = placed(steps, events)
    assert [time for time, _ in found] == [start + k * FRAME for k in range(20)]
    assert [verdict for _, verdict in found] == ["ok"] * 10 + ["stray"] * 2 + ["step"] + ["ok"] * 7
    assert (steps.steps, steps.shift_ns) == (1, step)


def test_one_stray_stamp_moves_nothing():
    steps = ClockSteps()
    found = placed(steps, [(k * FRAME + (HOUR if k == 4 else 0), k * FRAME) for k in range(10)])
    assert [time for time, _ in found] == [k * FRAME for k in range(10)]
    assert [verdict for _, verdict in found].count("stray") == 1 and steps.steps == 0


def test_a_pause_and_a_delay_are_no_steps():
    paused = [(k * FRAME + (60 * NS if k > 4 else 0),) * 2 for k in range(10)]
    delayed = [(k * FRAME, k * FRAME + (20 * NS if k > 4 else 0)) for k in range(10)]
    for events in (paused, delayed):
        assert placed(ClockSteps(), events) == [(stamp, "ok") for stamp, _ in events]


def test_a_count_without_gaps_shows_a_small_step():
    events = [(k * FRAME - (NS // 2 if k > 4 else 0), k * FRAME) for k in range(10)]
    assert [time for time, _ in placed(ClockSteps(), events, counted=True)] == [k * FRAME for k in range(10)]


def test_a_stamp_that_is_no_time_is_stray_for_ever():
    steps = ClockSteps()
    events = [(k * FRAME if k < 3 else 1 << 63, k * FRAME) for k in range(12)]
    found = placed(steps, events)
    assert [time for time, _ in found] == [k * FRAME for k in range(12)] and steps.steps == 0


def test_near_and_words():
    assert near(5 * NS, 100 * NS) and not near(5 * NS, 126 * NS) and not near(1 << 63, 1 << 63)
    assert (spoken(-5 * NS), spoken(3 * YEAR), spoken(3 * HOUR)) == ("5.0 s back", "3.0 years ahead", "3.0 hours ahead")
