"""Turn-taking between two synthetic speakers, as a timeline and as audio.

A turn is one to six phrases with short pauses; the floor changes with a gap from -0.3 s (overlap) to 1 s, now and then
a lapse. The listener answers phrase ends, and now and then the middle of a phrase, with a backchannel, a nod or both.
Somebody laughs now and then. Gaps are around 0.2 s and a backchannel comes every few phrases, as among people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from timar_ros.motion import MODEL_RATE
from timar_ros.synth.text import Line, phrases_of_turn, pick
from timar_ros.synth.voices import Voice, speak

Array = NDArray[np.float32]
MIN_GAP, MAX_GAP = -0.3, 1.0


@dataclass(frozen=True)
class Habits:
    """How a speaker talks and listens. Times in seconds, others are probabilities or weights.

    ``share``: weight of the length of own turns; ``pause``: mean pause between own phrases; ``gap``: mean gap before
    taking the floor; ``backchannel``: chance to answer a partner's phrase end aloud; ``nod``: chance to nod there;
    ``filler``: chance that a pause is filled; ``laugh``: chance of laughing after an own or partner's phrase.
    """

    share: float
    pause: float
    gap: float
    backchannel: float
    nod: float
    filler: float
    laugh: float


@dataclass(frozen=True)
class Utterance:
    """A stretch of one speaker's speech, or a silent reaction (``kind`` nod); times in seconds from the start.

    ``amplitude``, ``cycles``: of a nod, its size against the person's own and how often the head goes down.
    """

    speaker: int
    start: float
    end: float
    kind: str
    text: str
    turn_start: bool = False
    turn_end: bool = False
    amplitude: float = 1.0
    cycles: float = 1.0


@dataclass(frozen=True)
class Dialogue:
    """``clean [2, n]``: each speaker's voice, in [-1, 1] at an RMS of 0.1 while speaking; ``utterances`` by start."""

    clean: Array
    utterances: tuple[Utterance, ...]
    duration: float


def _level(samples: Array) -> Array:
    """Bring speech to an RMS of 0.1, so that voices are equally loud before each person's own level."""
    return samples * np.float32(0.1 / max(float(np.sqrt(np.mean(np.square(samples)))), 1e-6))


class _Timeline:
    """Collects utterances and their audio while the clock runs."""

    def __init__(self, cast: tuple[Voice, Voice], duration: float, rng: np.random.Generator) -> None:
        self.cast, self.rng = cast, rng
        self.samples = round(duration * MODEL_RATE)
        self.clean = np.zeros((2, self.samples), np.float32)
        self.utterances: list[Utterance] = []

    def say(self, speaker: int, at: float, line: Line, **flags: bool) -> float:
        """Speak a line at a time; returns when it ends. Lines beyond the conversation's end are left out."""
        rng = self.rng
        quiet = line.kind in ("backchannel", "filler", "laugh")
        lift = {"laugh": 3.0, "filler": -1.0}.get(line.kind, 0.0) + rng.normal(0, 0.8)
        audio = _level(speak(self.cast[speaker], line.text, haste=float(rng.uniform(0.9, 1.12)), lift=float(lift)))
        audio = audio * np.float32(rng.uniform(0.45, 0.8) if quiet else rng.uniform(0.8, 1.2))
        begin = round(at * MODEL_RATE)
        end = begin + len(audio)
        # A speaker has one mouth: utterances of one speaker must not overlap, whatever their order of creation.
        busy = any(
            u.speaker == speaker and u.kind != "nod" and u.start < end / MODEL_RATE and at < u.end
            for u in self.utterances
        )
        if end > self.samples or busy or begin < 0:
            return at
        self.clean[speaker, begin:end] += audio
        self.utterances.append(Utterance(speaker, at, end / MODEL_RATE, line.kind, line.text, amplitude=1.0, **flags))
        return end / MODEL_RATE

    def nod(self, speaker: int, at: float) -> None:
        """A silent nod that begins at a time."""
        if 0 < at < self.samples / MODEL_RATE - 1:
            size = float(np.clip(self.rng.normal(1.0, 0.2), 0.6, 1.6))
            # Half of all nods are single; the others go down two or three times.
            cycles = 1.0 if self.rng.random() < 0.5 else float(self.rng.uniform(1.7, 3.0))
            self.utterances.append(Utterance(speaker, at, at + 0.8, "nod", "", amplitude=size, cycles=cycles))

    def react(self, listener: int, habits: Habits, phrase_end: float, last: bool) -> None:
        """Choose the listener's reaction to the partner's phrase end."""
        rng = self.rng
        nods = rng.random() < habits.nod * (0.7 if last else 1.0)
        if nods:
            self.nod(listener, phrase_end + float(np.clip(rng.normal(0.16, 0.05), 0.04, 0.35)))
        if not last and rng.random() < habits.backchannel:
            self.say(listener, phrase_end + float(rng.normal(0.12, 0.12)), pick("backchannel", rng))


def hold_conversation(
    cast: tuple[Voice, Voice], habits: tuple[Habits, Habits], duration: float, rng: np.random.Generator
) -> Dialogue:
    """Let two voices talk for a time.

    :param cast: the voices of speaker 0 and 1.
    :param duration: length in seconds; the talk ends within a phrase of it.
    """
    line = _Timeline(cast, duration, rng)
    speaker, now, answers, opening = int(rng.integers(2)), float(rng.uniform(0.3, 1.2)), False, rng.random() < 0.5
    while now < duration - 1.5:
        own, other = habits[speaker], habits[1 - speaker]
        phrases = 1 + min(int(rng.poisson(1.6 * own.share)), 5)
        lines = [pick("opening", rng)] if opening else phrases_of_turn(rng, phrases, answers)
        opening = False
        for index, said in enumerate(lines):
            last = index == len(lines) - 1
            end = line.say(speaker, now, said, turn_start=index == 0, turn_end=last)
            if end <= now:
                now = duration
                break
            length = end - now
            if length > 2.0 and rng.random() < 0.25 * other.backchannel:
                line.say(1 - speaker, now + length * float(rng.uniform(0.4, 0.8)), pick("backchannel", rng))
            now = end
            if rng.random() < own.laugh:
                now = line.say(speaker, now + 0.1, pick("laugh", rng))
                if rng.random() < 0.6:
                    line.say(1 - speaker, now - float(rng.uniform(0.0, 0.4)), pick("laugh", rng))
            if said.kind not in ("filler", "opening"):
                line.react(1 - speaker, other, now, last)
            if not last:
                pause = float(np.clip(rng.gamma(4.0, own.pause / 4), 0.15, 1.5))
                if said.kind != "filler" and pause > 0.5 and rng.random() < own.filler:
                    line.say(speaker, now + 0.25, pick("filler", rng))
                now += pause if said.kind != "filler" else 0.2
                spoken = [u.end for u in line.utterances if u.speaker == speaker and u.kind == "filler"]
                now = max([now, *(t + 0.1 for t in spoken)])
        answers = bool(lines) and lines[-1].kind in ("question", "opening")
        speaker = 1 - speaker
        gap = float(np.clip(rng.normal(habits[speaker].gap, 0.3), MIN_GAP, MAX_GAP))
        now += gap if rng.random() > 0.06 else float(rng.uniform(1.0, 2.0))
        # The next speaker may still be saying "mhm" and must finish first.
        own_words = [u.end for u in line.utterances if u.speaker == speaker and u.kind != "nod"]
        now = max([now, *(t + 0.08 for t in own_words if t < now + 1.5)])
    ordered = tuple(sorted(line.utterances, key=lambda u: (u.start, u.speaker)))
    return Dialogue(line.clean, ordered, duration)


def record(dialogue: Dialogue, rng: np.random.Generator) -> Array:
    """The two microphones' signals, ``[2, n]`` in [-1, 1], with level, some tone colour, room noise and cross-talk."""
    heard = []
    for own in range(2):
        level = 10 ** (rng.uniform(-9, 5) / 20)
        cross = 10 ** (rng.uniform(-45, -28) / 20) if rng.random() < 0.5 else 0.0
        signal = level * (dialogue.clean[own] + cross * dialogue.clean[1 - own])
        # One pole of spectral tilt, up or down: microphones and distances differ.
        tilt = float(rng.uniform(-0.35, 0.35))
        signal = lfilter([1.0, tilt], [1.0], signal) / (1 + 0.5 * abs(tilt))
        noise = lfilter([1.0], [1.0, -float(rng.uniform(0.0, 0.9))], rng.standard_normal(len(signal)))
        noise *= 10 ** (rng.uniform(-72, -52) / 20) / noise.std()
        heard.append(signal + noise)
    mix = np.stack(heard)
    return np.asarray(mix * min(1.0, 0.97 / float(np.abs(mix).max())), dtype=np.float32)
