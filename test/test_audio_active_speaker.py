"""Who of several people is the partner: turns, overlaps, backchannels, cross-talk, the order of arrival."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from timar_ros.audio.active_speaker import STEP, ActiveSpeaker

PEOPLE = ("anna", "bert", "cleo")
Talk = Sequence[tuple[str, float]]
"""Stretches: the people who speak, as initials, and how long [s]."""


def frames_of(talk: Talk, start: float = 5.0) -> list[tuple[str, float, bool, float]]:
    """Frames of all people in the order of their times; who speaks is heard at -20 dB, silence is -70 dB."""
    found, number = [], round(start / STEP)
    for initials, seconds in talk:
        for _ in range(round(seconds / STEP)):
            for person in PEOPLE:
                speaks = person[0] in initials
                found.append((person, number * STEP, speaks, -20.0 if speaks else -70.0))
            number += 1
    return found


def partners(speaker: ActiveSpeaker, frames: Sequence[tuple[str, float, bool, float]]) -> list[tuple[str, float]]:
    """Each new partner, and the end of the frame that decided [s]."""
    found: list[tuple[str, float]] = []
    for frame in frames:
        name = speaker.push(*frame)
        if name is not None and (not found or found[-1][0] != name):
            found.append((name, round(speaker.decided, 3)))
    return found


@pytest.mark.parametrize(
    ("talk", "wanted"),
    [
        ([("a", 0.6), ("", 2.0)], []),
        ([("a", 1.0)], [("anna", 5.7)]),
        ([("a", 2.0), ("", 0.2), ("b", 2.0)], [("anna", 5.7), ("bert", 7.9)]),
        # Who begins early, and goes on, has the floor `hold` after the other's end.
        ([("a", 2.0), ("ab", 1.0), ("b", 2.0)], [("anna", 5.7), ("bert", 8.52)]),
        # Both go on: the holder stays.
        ([("a", 2.0), ("ab", 8.0)], [("anna", 5.7)]),
        # Who gives up an interruption, and a "mhm" in the holder's pause, get no floor.
        ([("a", 2.0), ("ab", 1.4), ("", 0.4), ("a", 2.0)], [("anna", 5.7)]),
        ([("a", 2.0), ("b", 0.5), ("", 0.3), ("a", 2.0)], [("anna", 5.7)]),
        ([("a", 1.0), ("", 0.4), ("a", 1.0), ("", 20.0), ("c", 1.0)], [("anna", 5.7), ("cleo", 28.1)]),
    ],
)
def test_the_partner_is_who_holds_the_floor(talk: Talk, wanted: list[tuple[str, float]]) -> None:
    assert partners(ActiveSpeaker(), frames_of(talk)) == wanted


def test_single_frames_hold_no_floor() -> None:
    coughing = frames_of([("a", 1.0)])
    for person, time, speaks, level in frames_of([("b", 4.0)], start=6.0):
        coughs = person == "anna" and round(time / STEP) % 50 == 0
        coughing.append((person, time, speaks or coughs, level))
    assert [name for name, _ in partners(ActiveSpeaker(), coughing)] == ["anna", "bert"]


def test_a_voice_in_anothers_channel_does_not_count() -> None:
    """Bert's microphone is 12 dB louder and hears Anna at his own usual level minus 15 dB; then the other way round."""
    talk = [("b", 2.0), ("", 1.0), ("a", 3.0), ("", 0.2), ("b", 3.0)]
    gain = {"anna": 0.0, "bert": 12.0, "cleo": 0.0}

    def heard(leak: float) -> list[tuple[str, float, bool, float]]:
        found = []
        for person, time, speaks, level in frames_of(talk):
            others = any(t == time and s for p, t, s, _ in now[time] if p != person)
            own = level if speaks else level if not others else -20.0 - leak
            found.append((person, time, speaks or others, own + gain[person]))
        return found

    now: dict[float, list[tuple[str, float, bool, float]]] = {}
    for frame in frames_of(talk):
        now.setdefault(frame[1], []).append(frame)
    assert [name for name, _ in partners(ActiveSpeaker(), heard(15.0))] == ["bert", "anna", "bert"]
    everything = partners(ActiveSpeaker(cross_talk=math.inf), heard(15.0))
    assert [name for name, _ in everything] != ["bert", "anna", "bert"]  # the case is no easy one


def test_the_order_of_arrival_decides_nothing() -> None:
    """Chunks of 0.1 s, each up to 0.08 s late: the same partners at the same times."""
    talk = [("a", 2.0), ("ab", 0.7), ("b", 1.5), ("", 0.6), ("c", 1.2), ("ca", 0.5), ("a", 2.0)]
    frames = frames_of(talk)
    wanted = partners(ActiveSpeaker(), frames)
    assert [name for name, _ in wanted] == ["anna", "bert", "cleo", "anna"]
    for seed in range(5):
        late = np.random.default_rng(seed).uniform(0.0, 0.08, (len(PEOPLE), 1000))

        def arrival(frame: tuple[str, float, bool, float], late: np.ndarray = late) -> float:
            chunk = round(frame[1] / STEP) // 5
            return chunk * 0.1 + float(late[PEOPLE.index(frame[0]), chunk])

        came = sorted(frames, key=arrival)
        assert [frame[0] for frame in came] != [frame[0] for frame in frames]
        assert partners(ActiveSpeaker(), came) == wanted


def test_who_is_silent_on_the_network_delays_no_one() -> None:
    """A tracker that sends a voice only while it speaks; and a clock that is set by an hour."""
    frames = [frame for frame in frames_of([("a", 2.0), ("", 0.1), ("b", 2.0)]) if frame[2]]
    assert partners(ActiveSpeaker(), frames) == [("anna", 5.7), ("bert", 7.8)]
    speaker = ActiveSpeaker()
    partners(speaker, frames)
    assert partners(speaker, frames_of([("c", 2.0)], start=3600.0))[-1][0] == "cleo"


def test_who_leaves_is_no_partner() -> None:
    speaker = ActiveSpeaker()
    partners(speaker, frames_of([("a", 1.0)]))
    speaker.forget("anna")
    assert speaker.partner is None
    assert partners(speaker, frames_of([("c", 1.0)], start=6.0)) == [("cleo", 6.7)]


def test_the_measurement_scores_a_known_meeting(repository: Path) -> None:
    path = repository / "scripts" / "measure_partners.py"
    spec = importlib.util.spec_from_file_location("measure_partners", path)
    assert spec is not None
    assert spec.loader is not None
    measure = sys.modules["measure_partners"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    said = [
        measure.Spoken(0, 1.0, 5.0, "turn"),
        measure.Spoken(2, 3.0, 3.4, "backchannel"),
        measure.Spoken(1, 4.0, 9.0, "turn"),
        measure.Spoken(2, 7.0, 8.0, "attempt"),
    ]
    meeting = measure.Meeting(np.zeros((3, 10 * 16000), np.float32), said, [(1.0, 0), (5.0, 1)])

    def figures(*chosen: tuple[float, int]) -> dict[str, float]:
        tally = measure.Tally()
        tally.add(meeting, list(chosen))
        return tally.figures()

    perfect = figures((1.0, 0), (5.0, 1))
    assert perfect["right partner [%]"] == perfect["right in overlap [%]"] == 100.0
    assert perfect["switch p95 [s]"] < 0.02
    stolen = figures((1.5, 0), (3.3, 2), (3.9, 0), (5.7, 1), (8.0, 2))
    assert stolen["right partner [%]"] == pytest.approx(100 * (1 - (0.5 + 0.6 + 0.7 + 2.0) / 9), abs=1.0)
    assert stolen["switch p50 [s]"] == pytest.approx(0.6, abs=0.03)
    assert stolen["false switches a minute"] == pytest.approx(60 * 2 / 9)
    assert stolen["backchannels that stole [%]"] == stolen["attempts that stole [%]"] == 100.0
    assert figures((1.0, 0))["missed changes [%]"] == 50.0
