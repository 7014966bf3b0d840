"""Blinks of the eyelids. FLAME's 50 expression coefficients contain no lids, so the network samples no blinks.

People in conversation blink about 18 times a minute, at irregular intervals (Bentivoglio et al. 1997 report 26 in
conversation and 17 at rest). The lids close in about 0.1 s and open in about twice that time.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

RATE = 18.0
"""Mean number of blinks a minute."""

CLOSING, CLOSED, OPENING = 0.09, 0.04, 0.2
"""How long the lids close, stay closed and open [s]."""

SLOT = 1.0
"""At most one blink begins in a stretch of this length [s]; chance decides whether and when."""

LONGEST = CLOSING + CLOSED + OPENING


def eyelid_closure(time_ns: NDArray[np.int64], seed: int = 0) -> Float:
    """Closure of the eyelids at times [N] (ns): 0 open, 1 closed, shape [N].

    It depends only on time and seed, so it is the same at any rate and after a restart.
    """
    slot_ns = round(SLOT * 1e9)
    slots, index = np.unique(np.asarray(time_ns, np.int64) // slot_ns, return_inverse=True)
    # A blink is over before its slot is; a slot without one counts as if it were long over.
    begins = np.array([_begin_ns(int(slot), slot_ns, seed) for slot in slots], np.int64)
    return _course(np.asarray((time_ns - begins[index]) * 1e-9, np.float64))


@functools.lru_cache(maxsize=1024)
def _begin_ns(slot: int, slot_ns: int, seed: int) -> int:
    """Begin of a slot's blink [ns]; a slot ago if the slot has none."""
    draw = np.random.default_rng([seed, slot % (1 << 63)])
    if draw.random() >= RATE / 60.0 * SLOT:
        return (slot - 1) * slot_ns
    return slot * slot_ns + round(draw.random() * (SLOT - LONGEST) * 1e9)


def _course(since: Float) -> Float:
    """The closure at times since a blink's begin [s]: raised cosines down and up."""
    down = np.clip(since / CLOSING, 0.0, 1.0)
    up = np.clip((since - CLOSING - CLOSED) / OPENING, 0.0, 1.0)
    return np.asarray((1.0 - np.cos(math.pi * down)) / 2.0 * (1.0 + np.cos(math.pi * up)) / 2.0)
