"""How a synthetic person moves: the voice determines face and manners, so that speech predicts how somebody moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timar_ros.synth.dialogue import Habits
from timar_ros.synth.voices import Voice


@dataclass(frozen=True)
class Manner:
    """A person's style. Angles in radians, FLAME axes (x left, y up, z out of the face).

    ``jaw_closed`` at rest and ``jaw_gain`` per unit of articulation; ``neutral [50]`` and ``head_rest [3]`` where the
    face and head rest; ``expression_gain`` scales the face's movement,
    ``liveliness`` scales the head's, which depends on the day and not on the voice (:func:`draw_liveliness`);
    ``gaze_side``: the side to which the head turns when taking the floor (-1 or 1); ``tilt_side``: the side to which it
    tilts; ``nod_hertz``, ``nod_cycles`` and ``nod_size`` of a backchannel's nod; ``beat`` of a stressed syllable;
    ``mirror``: share of the partner's posture that the person adopts; ``warmth``: share of the partner's smile that the
    person answers; ``rates [11]``: gains of the face's actions.
    """

    jaw_closed: float
    jaw_gain: float
    neutral: NDArray[np.float64]
    head_rest: NDArray[np.float64]
    expression_gain: float
    liveliness: float
    gaze_side: float
    tilt_side: float
    nod_hertz: float
    nod_cycles: float
    nod_size: float
    beat: float
    mirror: float
    warmth: float
    rates: NDArray[np.float64]
    habits: Habits


ACTIONS = 11
# Head movement of the liveliest person, relative to average manners, and relative to the stillest person.
LIVELIEST, SPAN = 2.2, 5.0


def draw_liveliness(rng: np.random.Generator) -> float:
    """A head's movement relative to average manners: 0.44–2.2, with equally many people in every octave."""
    return float(np.exp(rng.uniform(np.log(LIVELIEST / SPAN), np.log(LIVELIEST))))


def manner_of(voice: Voice, ood: bool) -> Manner:
    """The manner of a voice, always the same.

    Out-of-distribution people differ in manner, not only in voice: stiller or livelier, slower or faster nods, the
    other side for gaze and tilt, hastier or slower turn-taking.
    """
    rng = np.random.default_rng([voice.key, 7])
    wide = rng.choice([0.65, 1.45]) if ood else 1.0
    habits = Habits(
        share=float(rng.uniform(0.5, 1.5)),
        pause=float(rng.uniform(0.3, 0.6) * (rng.choice([0.75, 1.5]) if ood else 1.0)),
        gap=float(rng.uniform(0.1, 0.4) + (rng.choice([-0.15, 0.3]) if ood else 0.0)),
        backchannel=float(rng.uniform(0.25, 0.65)),
        nod=float(rng.uniform(0.35, 0.6)),
        filler=float(rng.uniform(0.1, 0.5)),
        laugh=float(rng.uniform(0.02, 0.1)),
    )
    side = -1.0 if ood else 1.0
    return Manner(
        jaw_closed=float(rng.uniform(-0.006, 0.002)),
        jaw_gain=float(np.exp(rng.normal(0, 0.15)) * np.sqrt(wide)),
        neutral=rng.normal(0, 0.3, 50),
        head_rest=rng.normal(0, 1, 3) * np.array([0.08, 0.1, 0.05]),
        expression_gain=float(np.exp(rng.normal(0, 0.15)) * np.sqrt(wide)),
        liveliness=1.0,
        # Most people share this habit, which a model can learn; it learns the others' side from the voice.
        gaze_side=side * (1.0 if rng.random() < 0.8 else -1.0),
        tilt_side=side * (1.0 if rng.random() < 0.8 else -1.0),
        nod_hertz=float(rng.uniform(2.8, 3.3) if ood else rng.uniform(1.8, 2.5)),
        nod_cycles=float(rng.uniform(1.0, 2.6)),
        nod_size=float(rng.uniform(0.07, 0.13)),
        beat=float(rng.uniform(0.02, 0.05)),
        mirror=float(rng.uniform(0.15, 0.45)),
        warmth=float(rng.uniform(0.5, 1.0)),
        rates=np.exp(rng.normal(0, 0.2, ACTIONS)),
        habits=habits,
    )
