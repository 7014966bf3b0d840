"""Figures of behaviour, on signals of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from timar_ros.evaluation.metrics.behaviour import mean_behaviour, measure

FRAMES = 1500


def conversation(lips: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Motion, user and agent audio: two seconds of the user, two of the agent, two of silence, in turn."""
    rng = np.random.default_rng(0)
    phase = np.arange(FRAMES) // 50 % 3
    user, agent = (np.repeat(phase == who, 640) * rng.standard_normal(FRAMES * 640) * 0.1 for who in (0, 1))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * np.arange(FRAMES * 640) / 16000)
    motion = rng.standard_normal((FRAMES, 56)) * 1e-3
    loud = (phase == 1) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * (np.arange(FRAMES) + 0.5) / 25))
    motion[:, 50] += 0.1 * (np.roll(loud, 3) if lips else 1)
    quiet = 1e-4 * rng.standard_normal((2, FRAMES * 640))
    return motion, (user + quiet[0]).astype(np.float32), (agent * syllables + quiet[1]).astype(np.float32)


def test_lips_that_follow_are_told_from_lips_that_do_not() -> None:
    motion, user, agent = conversation(lips=True)
    found = measure(motion, motion, user, agent)
    assert found["jaw_follows"] > 0.8
    assert found["jaw_follows_truth"] == found["jaw_follows"]
    assert found["jaw_listening"] < 0.3
    assert found["head_spread"] == pytest.approx(1.0)
    still, user, agent = conversation(lips=False)
    assert measure(still, motion, user, agent)["jaw_follows"] < 0.3


def test_nods_after_phrases_count() -> None:
    # The agent speaks after the user here, so swap roles: phrases are followed by silence.
    motion, user, agent = conversation(lips=True)
    nodding = motion.copy()
    for end in range(100, FRAMES - 25, 150):
        nodding[end : end + 25, 53] += 0.1 * np.sin(2 * np.pi * 2.5 * np.arange(25) / 25)
    assert measure(nodding, motion, agent, user)["nod_ratio"] > 3
    assert measure(motion, motion, agent, user)["nod_ratio"] < 2


def test_seams_show() -> None:
    motion, user, agent = conversation(lips=True)
    motion[:, 53:56] += 0.05 * (np.arange(FRAMES) // 25 % 2)[:, None]
    assert measure(motion, motion, user, agent)["seam_ratio"] > 3


def test_what_cannot_be_measured_is_left_out_of_means() -> None:
    motion, _, _ = conversation(lips=True)
    silence = np.zeros(FRAMES * 640, np.float32)
    found = measure(motion, motion, silence, silence)
    assert np.isnan(found["jaw_follows"])
    assert np.isnan(found["nod_ratio"]) or found["nod_ratio"] >= 0
    assert mean_behaviour([found, {**found, "jaw_follows": 0.5}])["jaw_follows"] == 0.5
    assert mean_behaviour([]) == {}
