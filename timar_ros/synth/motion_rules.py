"""How the synthetic people move: the rules from speech and turn-taking to jaw, head and the face's actions.

docs/synthetic-data.md describes the rules; the constants below have their numbers. Angles in radians, FLAME axes: a
positive turn about x nods down and opens the jaw, about y turns to the person's left, about z tilts towards the
person's right shoulder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from timar_ros.motion import EXPRESSION, HEAD, JAW, MOTION_RATE, MOTION_SIZE
from timar_ros.synth.dialogue import Dialogue, Utterance
from timar_ros.synth.face import expression_of
from timar_ros.synth.features import SpeechFeatures, Track, listen, smooth
from timar_ros.synth.manner import ACTIONS, Manner

# Jaw: radians of opening for full articulation. A mouth opens before its sound: tracked jaws lead the loudness by
# 0.09-0.13 s. The muscles' low pass lags by 1.5 frames, so advancing by three leaves a lead of about 0.1 s (half a
# frame lies between a frame and its sound).
JAW_OPENING = 0.095
JAW_PARTED = 0.035
JAW_HERTZ = 3.4
JAW_ADVANCE = 3
JAW_NOISE = 0.031
JAW_WANDER = 0.034

# All movement of the head, for a liveliness of 1.
HEAD_SIZE = 1.0
# Posture: deviation of a head's resting poses [rad], and the mean time between changes [s].
POSTURE_SIZE = np.array([0.050, 0.060, 0.032])
POSTURE_SECONDS = 1.7
# Share of a resting pose that remains at the next change: people return to a middle.
POSTURE_KEPT = 0.45


@dataclass(frozen=True)
class Person:
    """The rules' input for one person."""

    manner: Manner
    speech: SpeechFeatures
    spoken: tuple[Utterance, ...]
    nods: tuple[Utterance, ...]
    holds_floor: Track
    posture: NDArray[np.float64]


def bump(frames: int, start: float, rise: float, hold: float, fall: float) -> Track:
    """A smooth gesture in [0, 1] that starts at ``start`` seconds: raised-cosine rise and fall around a hold."""
    time = np.arange(frames) / MOTION_RATE - start
    up = np.clip(time / rise, 0, 1)
    down = np.clip((time - rise - hold) / fall, 0, 1)
    return np.asarray((1 - np.cos(np.pi * up)) / 2 * (1 + np.cos(np.pi * down)) / 2)


def wander(frames: int, seconds: float, rng: np.random.Generator, tracks: int = 1) -> NDArray[np.float64]:
    """Slow random movement ``[tracks, frames]`` with unit deviation and ``seconds`` of memory, smooth in speed."""
    pole = np.exp(-1.6 / (seconds * MOTION_RATE))
    lead = int(6 * seconds * MOTION_RATE)
    noise = rng.standard_normal((tracks, frames + lead))
    filtered = lfilter([1.0], [1, -2 * pole, pole**2], noise, axis=-1)[:, lead:]
    # Variance of a double real pole driven by unit noise.
    return np.asarray(filtered * np.sqrt((1 - pole**2) ** 3 / (1 + pole**2)))


def flicker(frames: int, seconds: float, rng: np.random.Generator, tracks: int = 1) -> NDArray[np.float64]:
    """First-order random movement ``[tracks, frames]`` with unit deviation: rougher than :func:`wander`."""
    pole = np.exp(-1 / (seconds * MOTION_RATE))
    lead = int(6 * seconds * MOTION_RATE)
    noise = rng.standard_normal((tracks, frames + lead))
    return np.asarray(lfilter([np.sqrt(1 - pole**2)], [1, -pole], noise, axis=-1)[:, lead:])


def floor_of(frames: int, spoken: tuple[Utterance, ...]) -> Track:
    """1 while a person has the floor, from the start of a turn to its end, with soft edges."""
    held, begin = np.zeros(frames), None
    for said in (u for u in spoken if u.kind != "backchannel"):
        begin = said.start if begin is None or said.turn_start else begin
        if said.turn_end:
            held = np.maximum(held, bump(frames, begin - 0.25, 0.4, max(said.end - begin - 0.1, 0.05), 0.5))
            begin = None
    if begin is not None:
        held = np.maximum(held, bump(frames, begin - 0.25, 0.4, frames / MOTION_RATE, 0.5))
    return held


def advanced(track: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """A track ``[..., T]`` shifted ``frames`` earlier; its last value is held."""
    return np.concatenate([track[..., frames:], np.repeat(track[..., -1:], frames, axis=-1)], axis=-1)


def posture_of(frames: int, spoken: tuple[Utterance, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """A head's resting poses ``[3, T]``: the head holds a pose, then moves to another within a fraction of a second.

    Moves are random, more frequent while speaking, and also occur at the starts of own turns. A wide move takes longer
    than a small one, as gaze shifts do (Guitton & Volle 1987), along the path of least jerk.
    """
    length = frames / MOTION_RATE
    talks = floor_of(frames, spoken)
    times, now = [], float(rng.uniform(0, POSTURE_SECONDS))
    while now < length:
        times.append(now)
        busy = 0.8 + 0.5 * talks[min(int(now * MOTION_RATE), frames - 1)]
        now += max(0.35, float(rng.gamma(1.6, POSTURE_SECONDS / 1.6)) / busy)
    times += [u.start - 0.25 for u in spoken if u.turn_start and u.kind != "backchannel"]
    place = rng.normal(0, 1, 3) * POSTURE_SIZE
    track = np.repeat(place[:, None], frames, axis=1)
    clock = np.arange(frames) / MOTION_RATE
    for at in sorted(times):
        # Two of three moves are small corrections.
        size = 1.35 if rng.random() < 0.35 else 0.5
        target = POSTURE_KEPT**size * place + size * rng.normal(0, 1, 3) * POSTURE_SIZE * 0.8
        step = target - place
        span = float(np.clip(0.28 + 1.6 * np.linalg.norm(step) + rng.normal(0, 0.06), 0.24, 0.9))
        share = np.clip((clock - at) / span, 0, 1)
        track += step[:, None] * (share**3 * (10 - 15 * share + 6 * share**2))
        place = target
    return track + np.array([[0.006], [0.007], [0.004]]) * wander(frames, 0.9, rng, 3)


def jaw_of(person: Person, rng: np.random.Generator) -> NDArray[np.float64]:
    """Jaw ``[T,3]``: articulation opens it before the sound; sibilants and silence close it, never past 0."""
    speech, manner, frames = person.speech, person.manner, len(person.speech.energy)
    drive = speech.energy**1.2 * (0.2 + 1.15 * speech.open) * (1 - 0.5 * speech.hiss)
    for at, strength in speech.stress:
        drive = drive + 0.35 * strength * bump(frames, at / MOTION_RATE - 0.08, 0.1, 0.0, 0.12)
    opening = JAW_OPENING * manner.jaw_gain * advanced(smooth(drive, JAW_HERTZ), JAW_ADVANCE)
    # Between words a speaking mouth stays a little open and moves less regularly; in a pause it closes within 0.3 s.
    active = advanced(smooth(np.clip(speech.energy * 2, 0, 1), 2.2), JAW_ADVANCE + 1)
    noise = JAW_NOISE * flicker(frames, 0.12, rng)[0] * active
    rest = (
        manner.jaw_closed
        + JAW_PARTED * manner.jaw_gain * active
        + JAW_WANDER * wander(frames, 1.5, rng)[0] * active
        + 0.0015 * flicker(frames, 0.3, rng)[0]
    )
    raw = opening + rest + noise
    x = 0.004 * np.logaddexp(0, raw / 0.004)
    side = (0.0015 + 0.007 * active) * flicker(frames, 0.3, rng, 2)
    side += 0.05 * (x - manner.jaw_closed) * rng.choice([-1, 1], (2, 1))
    return np.stack([x, *side], axis=1)


def head_of(person: Person, partner: Person, rng: np.random.Generator) -> NDArray[np.float64]:
    """Head pose ``[T,3]``: posture, own and mirrored, gaze at turn changes, phrase arcs, beats, nods, laughter."""
    manner, frames = person.manner, len(person.speech.energy)
    gain = manner.liveliness
    head = person.posture * gain
    # A person adopts the partner's posture half a second later.
    late = round(0.5 * MOTION_RATE)
    copied = np.concatenate([np.repeat(partner.posture[:, :1], late, axis=1), partner.posture[:, :-late]], axis=1)
    head += manner.mirror * gain * smooth(copied, 1.0) * np.array([[1.0], [-1.0], [-1.0]])

    # Emphasis lifts the head; holding the floor turns it a little to the tilt side.
    effort = smooth(person.speech.energy, 0.7)
    head[0] -= gain * 0.07 * (effort - 0.25)
    head[2] += gain * 0.025 * manner.tilt_side * (person.holds_floor - 0.4)
    head[1] += gain * 0.03 * manner.gaze_side * (person.holds_floor - 0.4)

    for said in person.spoken:
        length = said.end - said.start
        if said.kind == "laugh":
            time = np.arange(frames) / MOTION_RATE - said.start
            shape = bump(frames, said.start, 0.2, length, 0.5)
            head[0] += gain * shape * (-0.09 + 0.025 * np.sin(2 * np.pi * 4.2 * time))
            continue
        if said.turn_start and said.kind != "backchannel":
            # A planning speaker looks away from before the first word, and looks back before the turn ends.
            size = float(np.clip(rng.normal(0.13, 0.04), 0.04, 0.22))
            away = bump(frames, said.start - 0.45, 0.4, min(0.4 + 0.4 * length, 1.4), 0.5)
            head[1] += gain * size * manner.gaze_side * away
            head[0] += gain * 0.3 * size * away
        if length > 0.8:
            arc = bump(frames, said.start, 0.4 * length, 0.1, 0.5 * length)
            head[1] -= gain * 0.05 * manner.gaze_side * arc
        if said.kind == "question":
            head[2] += gain * 0.08 * manner.tilt_side * bump(frames, said.end - 0.6, 0.5, 0.5, 0.7)
        if said.kind == "denial":
            time = np.arange(frames) / MOTION_RATE - said.start
            head[1] += gain * 0.07 * bump(frames, said.start, 0.15, 0.7, 0.3) * np.sin(2 * np.pi * 2.2 * time)
        if said.kind == "agreement":
            head[0] += nod(frames, said.start + 0.05, manner) * np.sqrt(gain) * 0.8

    for at, strength in person.speech.stress:
        # Each beat has its own direction: mostly down, partly to a side.
        size = gain * manner.beat * strength * float(np.exp(rng.normal(0, 0.4)))
        side = rng.normal(0, 1, 2)
        head[0] += size * bump(frames, at / MOTION_RATE - 0.04, 0.14, 0.0, 0.22)
        head[1] += 1.15 * size * side[0] * bump(frames, at / MOTION_RATE - 0.02, 0.15, 0.0, 0.25)
        head[2] += 0.65 * size * (side[1] + manner.tilt_side) * bump(frames, at / MOTION_RATE, 0.16, 0.0, 0.26)
    for wink in person.nods:
        # In still people nods keep most of their size: a nod is a signal, not fidgeting.
        head[0] += wink.amplitude * gain**0.4 * nod(frames, wink.start, manner, wink.cycles)
    for said in person.spoken:
        if said.kind == "backchannel":
            head[0] += 0.7 * gain**0.4 * nod(frames, said.start - 0.05, manner)
    head += np.sqrt(gain) * np.array([[0.003], [0.0045], [0.0028]]) * flicker(frames, 0.1, rng, 3)
    return np.asarray(HEAD_SIZE * head.T + manner.head_rest)


def nod(frames: int, start: float, manner: Manner, cycles: float | None = None) -> Track:
    """One nod: the head goes down and comes back, ``cycles`` times (``manner.nod_cycles``) with fading strength."""
    time = np.arange(frames) / MOTION_RATE - start
    length = (manner.nod_cycles if cycles is None else cycles) / manner.nod_hertz
    inside = (time > 0) & (time < length)
    wave = (1 - np.cos(2 * np.pi * manner.nod_hertz * time)) / 2
    # The last cycle fades out so that a partial cycle leaves no step.
    fade = np.clip((length - time) * manner.nod_hertz * 1.5, 0, 1)
    return np.asarray(np.where(inside, manner.nod_size * wave * np.exp(-0.9 * time) * fade, 0.0))


def smiles_of(people: tuple[Person, Person], frames: int, rng: np.random.Generator) -> list[Track]:
    """Both people's smiles: at laughter and greetings and now and then; the partner answers with a delay."""
    own = [np.zeros(frames), np.zeros(frames)]
    answered = [np.zeros(frames), np.zeros(frames)]
    for index, person in enumerate(people):
        starts = [(u.start - 0.1, u.end - u.start) for u in person.spoken if u.kind in ("laugh", "opening")]
        starts += [(u.end - 0.3, 0.6) for u in person.spoken if u.kind == "statement" and rng.random() < 0.08]
        for start, length in starts:
            size, hold = float(rng.uniform(0.7, 1.2)), length + float(rng.uniform(0.6, 1.6))
            own[index] += size * bump(frames, start, 0.35, hold, 0.9)
            other = people[1 - index].manner
            if rng.random() < other.warmth:
                delay = float(np.clip(rng.normal(0.55, 0.12), 0.25, 1.0))
                answered[1 - index] += size * other.warmth * bump(frames, start + delay, 0.4, hold * 0.8, 0.9)
    return [np.clip(own[i] + answered[i], 0, 1.5) for i in range(2)]


def brows_of(person: Person, frames: int, rng: np.random.Generator) -> Track:
    """Brow raises: with questions, strong stresses and backchannels, and with half of the silent nods."""
    brow = np.zeros(frames)
    for said in person.spoken:
        if said.kind == "question":
            brow += 0.9 * bump(frames, said.end - 0.8, 0.3, 0.5, 0.5)
        elif said.kind == "backchannel":
            brow += 0.7 * bump(frames, said.start - 0.05, 0.2, 0.25, 0.4)
    for wink in person.nods:
        if rng.random() < 0.5:
            brow += 0.6 * bump(frames, wink.start, 0.2, 0.3, 0.4)
    for at, strength in person.speech.stress:
        if strength > 0.5:
            brow += 0.5 * strength * bump(frames, at / MOTION_RATE - 0.08, 0.16, 0.05, 0.3)
    return brow


def blinks_of(person: Person, frames: int, rng: np.random.Generator) -> Track:
    """Blinks of 0.24 s: at half the phrase ends and turn starts, and at random 9 (listening) to 16 a minute."""
    blink = np.zeros(frames)
    times = [u.end + rng.normal(0.05, 0.04) for u in person.spoken if rng.random() < 0.5]
    times += [u.start for u in person.spoken if u.turn_start and rng.random() < 0.5]
    chance = (0.15 + 0.12 * person.holds_floor) / MOTION_RATE
    times += list(np.flatnonzero(rng.random(frames) < chance) / MOTION_RATE)
    for at in times:
        blink = np.maximum(blink, bump(frames, float(at), 0.08, 0.02, 0.14))
    return blink


def actions_of(
    person: Person, partner: Person, jaw: NDArray[np.float64], smile: Track, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The face's actions ``[ACTIONS, T]`` in the order of :data:`timar_ros.synth.face.ACTION_MEAN`."""
    speech, frames = person.speech, len(person.speech.energy)
    late = {name: smooth(getattr(speech, name), 3.2) for name in ("spread", "round", "hiss")}
    talking = smooth((speech.energy > 0.15).astype(np.float64), 2.0)
    press = smooth(np.clip(0.45 - speech.energy, 0, None) * talking, 4.0)
    think = np.zeros(frames)
    for said in person.spoken:
        if said.turn_start or said.kind == "filler":
            think += bump(frames, said.start - 0.35, 0.3, 0.5, 0.6)
    # A listener's face follows the partner's vocal effort.
    heed = smooth(partner.speech.effort, 0.8) * (1 - person.holds_floor)
    opened = (jaw[:, 0] - person.manner.jaw_closed) / JAW_OPENING
    rows = [opened, late["spread"], late["round"] + 0.3 * late["hiss"], press, smile, brows_of(person, frames, rng)]
    rows += [blinks_of(person, frames, rng), think, speech.effort, person.holds_floor, heed]
    actions_over_time = np.stack(rows)
    assert actions_over_time.shape[0] == ACTIONS
    return actions_over_time * person.manner.rates[:, None]


def move(dialogue: Dialogue, manners: tuple[Manner, Manner], rng: np.random.Generator) -> NDArray[np.float32]:
    """Motion of both speakers ``[2, T, 56]`` in TIMAR order at 25 frames a second."""
    frames = int(dialogue.duration * MOTION_RATE)
    people = []
    for index in range(2):
        spoken = tuple(u for u in dialogue.utterances if u.speaker == index and u.kind != "nod")
        nods = tuple(u for u in dialogue.utterances if u.speaker == index and u.kind == "nod")
        posture = posture_of(frames, spoken, rng)
        speech = listen(dialogue.clean[index], frames)
        people.append(Person(manners[index], speech, spoken, nods, floor_of(frames, spoken), posture))
    pair = (people[0], people[1])
    smiles = smiles_of(pair, frames, rng)
    motion = np.empty((2, frames, MOTION_SIZE), np.float32)
    for index, person in enumerate(pair):
        partner = pair[1 - index]
        jaw = jaw_of(person, rng)
        actions = actions_of(person, partner, jaw, smiles[index], rng)
        motion[index, :, EXPRESSION] = expression_of(actions, person.manner, rng)
        motion[index, :, JAW] = jaw
        motion[index, :, HEAD] = head_of(person, partner, rng)
    return motion
