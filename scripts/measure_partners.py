"""Measure the choice of the partner among several people: synthetic voices that talk to each other, with known truth.

People speak in turns with pauses, gaps, overlaps, lapses and backchannels; some interrupt and get the
floor, some interrupt and give up. Truth: the floor goes to the next speaker when both the own turn has begun and the
former holder's has ended. Needs espeak-ng and flite (`make synth-tools`) and webrtcvad (`timar_ros[live]`).

    python scripts/measure_partners.py --people 3 --meetings 12
    python scripts/measure_partners.py --gaze           # when the head of `timar_head` looks at who speaks
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timar_ros.audio.active_speaker import STEP, ActiveSpeaker, PartnerChoice
from timar_ros.audio.vad import FRAME, VoiceActivity
from timar_ros.motion import MODEL_RATE
from timar_ros.retarget import JointMotion, Retargeter, load_profile
from timar_ros.retarget.robot_check import violations
from timar_ros.synth.text import pick
from timar_ros.synth.voices import Voice, require_engines, speak, voices

Array = NDArray[np.float32]
PAUSE = (0.15, 0.9)
LEAD = 3.0


@dataclass(frozen=True)
class Spoken:
    """A stretch of one person's speech [s]. ``kind``: turn, backchannel, or attempt (an interruption given up)."""

    person: int
    start: float
    end: float
    kind: str


@dataclass
class Meeting:
    """``audio [people, n]`` at 16 kHz; what was said; ``floor``: times [s] at which a person took the floor."""

    audio: Array
    said: list[Spoken] = field(default_factory=list)
    floor: list[tuple[float, int]] = field(default_factory=list)


def _phrase(voice: Voice, kind: str, rng: np.random.Generator) -> Array:
    samples = speak(voice, pick(kind, rng).text, haste=float(rng.uniform(0.9, 1.12)))
    return np.asarray(samples * 0.1 / max(float(np.sqrt(np.mean(samples**2))), 1e-6), np.float32)


def hold_meeting(people: int, seconds: float, rng: np.random.Generator) -> Meeting:
    """Let people talk to each other for about ``seconds`` [s]."""
    pool = voices(False)
    cast = [pool[i] for i in rng.choice(len(pool), people, replace=False)]
    meeting = Meeting(np.zeros((people, round((seconds + 30) * MODEL_RATE)), np.float32))

    def say(person: int, at: float, samples: Array, kind: str, loud: float = 1.0) -> float:
        begin = round(at * MODEL_RATE)
        end = int(min(begin + len(samples), meeting.audio.shape[1]))
        meeting.audio[person, begin:end] += loud * samples[: end - begin]
        meeting.said.append(Spoken(person, at, end / MODEL_RATE, kind))
        return end / MODEL_RATE

    now, person = LEAD, int(rng.integers(people))
    meeting.floor.append((now, person))
    while now < seconds:
        phrases = [_phrase(cast[person], "statement", rng) for _ in range(1 + min(int(rng.poisson(1.5)), 4))]
        others = [p for p in range(people) if p != person]
        begun, at, ended = now, now, now
        for index, phrase in enumerate(phrases):
            ended = say(person, at, phrase, "turn", float(rng.uniform(0.8, 1.2)))
            listener = others[rng.integers(len(others))]
            last = index == len(phrases) - 1
            if not last and rng.random() < 0.5:
                # Aloud over the phrase's end, or in the pause after it.
                when = ended + float(rng.uniform(-0.8, 0.15))
                say(listener, max(when, begun), _phrase(cast[listener], "backchannel", rng), "backchannel",
                    float(rng.uniform(0.5, 0.9)))  # fmt: skip
            elif not last and ended - at > 1.6 and rng.random() < 0.2:
                words = _phrase(cast[listener], "statement", rng)
                length = round(float(rng.uniform(0.7, 1.4)) * MODEL_RATE)
                say(listener, at + 0.2, words[:length], "attempt")
            if not last:
                at = ended + float(rng.uniform(*PAUSE))
        follower = others[rng.integers(len(others))]
        chance = rng.random()
        if chance < 0.15 and ended - at > 1.6:  # an interruption that succeeds: both talk, then the holder gives way
            start = ended - float(rng.uniform(0.6, 1.4))
        elif chance < 0.25:  # a lapse
            start = ended + float(rng.uniform(1.5, 4.0))
            follower = int(rng.integers(people))
        else:
            start = ended + float(np.clip(rng.normal(0.2, 0.35), -0.4, 1.2))
        busy = max((s.end for s in meeting.said if s.person == follower), default=0.0)
        now, held = max(start, busy + 0.1), person
        person = follower
        if person != held:
            meeting.floor.append((max(now, ended), person))
    meeting.audio = meeting.audio[:, : round((now + 1.0) * MODEL_RATE)]
    if meeting.floor[-1][0] >= now:  # nobody speaks after the last change
        meeting.floor.pop()
    return meeting


def microphones(meeting: Meeting, snr: float, leak: float | None, rng: np.random.Generator) -> Array:
    """Each person's channel ``[people, n]``: own gain, noise ``snr`` [dB] below the voice, others' voices by ``leak``.

    :param leak: level [dB] of the other voices in a person's channel before its gain; None: separate rooms.
    """
    clean = meeting.audio
    share = 0.0 if leak is None else 10 ** (leak / 20)
    mixed = (1 - share) * clean + share * clean.sum(axis=0)
    noise = rng.standard_normal(clean.shape).astype(np.float32) * np.float32(0.1 * 10 ** (-snr / 20))
    gains = 10 ** (rng.uniform(-6, 6, (len(clean), 1)) / 20)
    return np.asarray((mixed + noise) * gains, np.float32)


def choose(channels: Array, speaker: ActiveSpeaker, gated: bool = False) -> list[tuple[float, int]]:
    """The choices: times [s], the ends of the frames that decided, and persons.

    :param gated: a channel sends only while its detector hears speech, and half a second longer, as trackers do.
    """
    choice = PartnerChoice(speaker)
    gates = [VoiceActivity(MODEL_RATE, 2) for _ in channels]
    open_until = [-1.0] * len(channels)
    for block in range(channels.shape[1] // FRAME):
        time = block * STEP
        for person, channel in enumerate(channels):
            samples = channel[block * FRAME : (block + 1) * FRAME]
            if gated and any(heard.speaking for heard in gates[person].push(samples)):
                open_until[person] = time + 0.5
            if not gated or time <= open_until[person]:
                choice.push(str(person), time, samples)
    return [(decided, int(name)) for decided, name in choice.changes]


def _at(changes: list[tuple[float, int]], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """The person at each time, -1 before the first change."""
    index = np.searchsorted([t for t, _ in changes], times, side="right")
    return np.array([-1, *(p for _, p in changes)])[index]


@dataclass
class Tally:
    """Sums over meetings; ``figures`` gives the rates."""

    right: list[NDArray[np.bool_]] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    missed: int = 0
    false: int = 0
    seconds: float = 0.0
    over: dict[str, list[bool]] = field(default_factory=lambda: {"backchannel": [], "attempt": []})
    overlap: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, meeting: Meeting, chosen: list[tuple[float, int]]) -> None:
        """Score one meeting's choices."""
        end = meeting.audio.shape[1] / MODEL_RATE
        times = np.arange(meeting.floor[0][0], end, STEP)
        truth, found = _at(meeting.floor, times), _at(chosen, times)
        self.right.append(truth == found)
        self.seconds += end - meeting.floor[0][0]
        talking = np.zeros((len(meeting.audio), len(times)), bool)
        for said in meeting.said:
            talking[said.person] |= (times >= said.start) & (times < said.end)
        both = talking.sum(axis=0) > 1
        self.overlap.append((truth == found)[both])
        for index, (at, person) in enumerate(meeting.floor):
            until = meeting.floor[index + 1][0] if index + 1 < len(meeting.floor) else end
            hits = np.flatnonzero((times >= at) & (times < until) & (found == person))
            if len(hits):
                self.delays.append(max(0.0, float(times[hits[0]]) - at))
            else:
                self.missed += 1
        for at, person in chosen:
            self.false += int(_at(meeting.floor, np.array([at]))[0] != person)
        for said in meeting.said:
            if said.kind in self.over:
                took = [t for t, p in chosen if p == said.person and said.start <= t <= said.end + 0.5]
                holder = _at(meeting.floor, np.array(took or [0.0]))
                self.over[said.kind].append(bool(took) and bool((holder != said.person).any()))

    def figures(self) -> dict[str, float]:
        """Shares in %, times in s, switches a minute."""
        return {
            "right partner [%]": 100 * float(np.concatenate(self.right).mean()),
            "right in overlap [%]": 100 * float(np.concatenate(self.overlap).mean()),
            "switch p50 [s]": float(np.median(self.delays)),
            "switch p95 [s]": float(np.percentile(self.delays, 95)),
            "missed changes [%]": 100 * self.missed / (self.missed + len(self.delays)),
            "false switches a minute": 60 * self.false / self.seconds,
            "backchannels that stole [%]": 100 * float(np.mean(self.over["backchannel"] or [False])),
            "attempts that stole [%]": 100 * float(np.mean(self.over["attempt"] or [False])),
            "floor changes": float(self.missed + len(self.delays)),
        }


def look(meeting: Meeting, chosen: list[tuple[float, int]]) -> tuple[list[float], float]:
    """Times [s] from each change of the floor until the head looks at the person, and the largest excess of a limit.

    People sit 2 m away, 35 degrees apart; targets come ten times a second. A head that is not there before the next
    change counts as infinitely late.
    """
    profile, people = load_profile("timar_head"), len(meeting.audio)
    yaws = np.radians(35.0) * (np.arange(people) - (people - 1) / 2)
    retargeter = Retargeter(profile)
    retargeter.start(0)
    end, parts = meeting.audio.shape[1] / MODEL_RATE, []
    for tenth in range(int(end * 10)):
        person = _at(chosen, np.array([tenth / 10]))[0]
        parts.append(retargeter.advance(tenth * 100_000_000))
        if person >= 0:
            yaw = float(yaws[person])
            retargeter.look(tenth * 100_000_000, (2 * float(np.cos(yaw)), 2 * float(np.sin(yaw)), 0.0))
    motion = JointMotion.join([part for part in parts if len(part)])
    times, turned, waits = motion.time_ns * 1e-9, motion.position[:, 0], []
    for (at, person), (until, _) in itertools.pairwise([*meeting.floor, (end, -1)]):
        there = np.flatnonzero((times >= at) & (times < until) & (np.abs(turned - yaws[person]) < np.radians(3)))
        waits.append(float(times[there[0]]) - at if len(there) else float("inf"))
    return waits, max(violations(profile, motion).values())


CONDITIONS: dict[str, tuple[float, float | None, bool]] = {
    "own channels": (40.0, None, False),
    "noise at 15 dB": (15.0, None, False),
    "others at -30 dB": (40.0, -30.0, False),
    "others at -20 dB": (40.0, -20.0, False),
    "others at -12 dB": (40.0, -12.0, False),
    "sent while speaking": (40.0, None, True),
}


def main() -> int:
    """Print a table, one column a condition."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--meetings", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=90.0, help="length of a meeting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--take-after", type=float, default=ActiveSpeaker().take_after)
    parser.add_argument("--hold", type=float, default=ActiveSpeaker().hold)
    parser.add_argument("--cross-talk", type=float, default=ActiveSpeaker().cross_talk)
    parser.add_argument("--gaze", action="store_true", help="measure the head instead, with own channels")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    require_engines()
    tallies = {name: Tally() for name in CONDITIONS}
    waits: list[float] = []
    excess = 0.0
    for number in range(options.meetings):
        meeting = hold_meeting(options.people, options.seconds, np.random.default_rng([options.seed, number]))
        for name, (snr, leak, gated) in CONDITIONS.items():
            channels = microphones(meeting, snr, leak, np.random.default_rng([options.seed, number, 1]))
            rule = ActiveSpeaker(options.take_after, hold=options.hold, cross_talk=options.cross_talk)
            chosen = choose(channels, rule, gated)
            if options.gaze:
                found, beyond = look(meeting, chosen)
                waits, excess = waits + found, max(excess, beyond)
                break
            tallies[name].add(meeting, chosen)
    if options.gaze:
        p50, p95 = np.percentile(waits, [50, 95])
        never = 100 * float(np.mean(np.isinf(waits)))
        print(f"head within 3 degrees after a change of the floor: p50 {p50:.2f} s, p95 {p95:.2f} s, {never:.0f} % not")
        print(f"before the next change ({len(waits)} changes); largest excess of a joint limit {excess:.1e}")
        return 0
    figures = {name: tally.figures() for name, tally in tallies.items()}
    print(f"| {options.people} people | " + " | ".join(figures) + " |")
    print("|---" * (len(figures) + 1) + "|")
    for row in next(iter(figures.values())):
        print(f"| {row} | " + " | ".join(f"{column[row]:.3g}" for column in figures.values()) + " |")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
