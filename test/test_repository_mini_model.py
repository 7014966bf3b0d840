"""The model that ships: it is there, small, trained, honest about it, and moves like somebody who talks and listens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from timar_ros.data.audio_files import load_conversation
from timar_ros.data.motion_files import read_motion
from timar_ros.evaluation.metrics.behaviour import PITCH, nod_power, phrase_ends
from timar_ros.evaluation.metrics.conversation_signals import voice_activity
from timar_ros.model import Timar
from timar_ros.streaming.offline import generate, resolve_model
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.training.run_config import config_from_dict

Array = NDArray[np.float32]
FRAME = 640
LARGEST_MEGABYTES = 20


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "models/timar-mini"


@pytest.fixture(scope="module")
def model() -> Timar:
    return resolve_model("timar-mini")


@pytest.fixture(scope="module")
def sample(repository: Path) -> tuple[Array, Array, Array]:
    """Both voices and the user's motion of the sample conversation."""
    user, agent, _ = load_conversation(repository / "samples/conversation.flac")
    return user, agent, read_motion(repository / "samples/conversation_user.npz")


@pytest.fixture(scope="module")
def motion(model: Timar, sample: tuple[Array, Array, Array]) -> Array:
    """What the model does in the sample conversation."""
    return generate(model, PipelineOptions(seed=1), *sample)


def loudness(samples: Array) -> Array:
    """Smoothed log-energy a motion frame."""
    power = np.square(samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)).mean(1)
    return np.asarray(uniform_filter1d(np.log(np.sqrt(power) + 1e-3), 5))


def follows(samples: Array, jaw: Array) -> float:
    """Best correlation of loudness with the jaw 0 to 5 frames later."""
    energy = loudness(samples)[: len(jaw)]
    jaw = jaw[: len(energy)]
    return max(float(np.corrcoef(energy[: len(energy) - lag], jaw[lag:])[0, 1]) for lag in range(6))


def nods(model: Timar, voices: Iterable[Array], **options: Any) -> float:
    """Nodding in the second after phrases over nodding elsewhere, while people talk and the agent says nothing."""
    after, otherwise = [], []
    for voice in voices:
        made = generate(model, PipelineOptions(seed=1, **options), voice, np.zeros_like(voice))
        for power, where in zip(
            nod_power(made[:, PITCH], np.zeros(len(made), bool), phrase_ends(voice_activity(voice))),
            (after, otherwise),
            strict=True,
        ):
            where.append(power)
    return float(np.concatenate(after).mean() / np.concatenate(otherwise).mean())


def test_folder_is_complete_small_and_trained(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "MODEL_CARD.md",
        "training_log.csv",
    }
    assert sum(p.stat().st_size for p in folder.iterdir()) < LARGEST_MEGABYTES * 2**20
    described = json.loads((folder / "config.json").read_text())
    assert described["trained"] is True
    steps, training = 0, described["training"]
    while training:
        steps += training["step"]
        config_from_dict(training["config"])
        training = training.get("start")
    assert steps > 1000


def test_it_is_the_default_and_counts_as_trained(model: Timar) -> None:
    assert model.trained
    assert model.name == "timar-mini"
    assert model.config.head == "joint"
    assert model.config.guidance == 2.0
    assert resolve_model().sha256 == model.sha256


def test_card_says_what_it_learned_from(folder: Path) -> None:
    card = (folder / "MODEL_CARD.md").read_text()
    assert "synthetic" in card.lower()
    assert "not" in card.lower()


def test_lips_follow_the_agents_voice_and_not_the_users(motion: Array, sample: tuple[Array, Array, Array]) -> None:
    user, agent, _ = sample
    own, others = follows(agent, motion[:, 50]), follows(user, motion[:, 50])
    assert own >= 0.45
    assert others < 0.5 * own


def test_jaw_is_nearly_closed_while_only_the_user_speaks(motion: Array, sample: tuple[Array, Array, Array]) -> None:
    user, agent = (loudness(x)[: len(motion)] for x in sample[:2])
    listens = (uniform_filter1d((agent > np.log(0.01)).astype(float), 25) == 0) & (user > np.log(0.01))
    talks = agent > np.log(0.03)
    assert listens.sum() > 50
    jaw = motion[: len(agent), 50]
    assert jaw[listens].mean() < 0.7 * jaw[talks].mean()


def test_a_listener_nods_after_phrases(model: Timar, sample: tuple[Array, Array, Array]) -> None:
    guided, without = (nods(model, sample[:2], guidance=strength) for strength in (None, 0.0))
    assert guided > max(1.5, 1.2 * without)


def test_the_model_with_a_head_by_frames_still_serves(sample: tuple[Array, Array, Array]) -> None:
    """Its listener would not nod if the head's fast movement were what is drawn."""
    by_frames = resolve_model("timar-mini-frame")
    assert by_frames.config.head == "frame"
    with_bands, without = (nods(by_frames, sample[:2], head_crossover=hertz) for hertz in (None, 0.0))
    assert with_bands > max(1.5, 1.2 * without)


def test_motion_is_plausible(motion: Array) -> None:
    assert np.isfinite(motion).all()
    spread = motion.std(0)
    assert (spread[53:56] > 0.01).all()
    assert (spread[53:56] < 0.25).all()
    assert 0.015 < spread[50] < 0.15
    assert np.abs(motion[:, :50]).max() < 8
    steps = np.abs(np.diff(motion[:, 53:56], axis=0)).mean(1)
    at_seams = np.arange(24, len(steps), 25)
    inside = np.setdiff1d(np.arange(len(steps)), at_seams)
    assert steps[at_seams].mean() < 3 * steps[inside].mean()


def test_without_a_tracker_and_ahead_of_time(model: Timar, sample: tuple[Array, Array, Array]) -> None:
    user, agent, _ = (x[: 15 * 16000] for x in sample)
    for options in (PipelineOptions(seed=1), PipelineOptions(seed=1, mode="anticipatory")):
        made = generate(model, options, user, agent)
        assert np.isfinite(made).all()
        assert follows(agent, made[:, 50]) >= 0.4


def test_partial_tracking_is_taken(model: Timar, sample: tuple[Array, Array, Array]) -> None:
    user, agent, seen = sample
    head_only = seen.copy()
    head_only[:, :53] = np.nan
    made = generate(model, PipelineOptions(seed=1), user[: 5 * 16000], agent[: 5 * 16000], head_only[:125])
    assert np.isfinite(made).all()


@pytest.mark.slow
def test_no_drift_over_ten_minutes(model: Timar, sample: tuple[Array, Array, Array]) -> None:
    user, agent, seen = sample
    times = -(-600 * 16000 // len(agent))
    long = generate(
        model, PipelineOptions(seed=1), np.tile(user, times), np.tile(agent, times), np.tile(seen, (times, 1))
    )
    minutes = long[: 600 * 25].reshape(10, -1, 56)
    means, deviation = minutes.mean(1), long.std(0)
    assert (np.abs(means[-1] - means[0])[50:] < deviation[50:]).all()
    assert (minutes[-1].std(0)[50:] < 2 * minutes[0].std(0)[50:]).all()


def test_a_listener_nods_after_real_phrases(model: Timar, shared: Path) -> None:
    stem = shared / "data/dualtalk_demo/UbjUDM1MiGE_sub_video_72"
    assert nods(model, (soundfile.read(f"{stem}_speaker{s}.wav", dtype="float32")[0] for s in (1, 2))) >= 1.5


def test_a_real_recording(model: Timar, shared: Path) -> None:
    """Lips follow a real voice, and the dial reaches the size of this person's head, who moves more than most."""
    stem = shared / "data/dualtalk_demo/UbjUDM1MiGE_sub_video_72"
    user, agent = (soundfile.read(f"{stem}_speaker{s}.wav", dtype="float32")[0] for s in (1, 2))
    with np.load(f"{stem}_speaker2.npz", allow_pickle=False) as truth:
        real = np.concatenate([truth["pose"][:, :3], truth["pose"][:, 3:4]], axis=1)
    spread = []
    for seed in range(4):
        made = generate(model, PipelineOptions(seed=seed, liveliness=2.0), user, agent)
        assert follows(agent, made[:, 50]) >= 0.45
        spread.append(made[:, [53, 54, 55, 50]].std(0) / real[: len(made)].std(0))
    assert (np.mean(spread, axis=0) > 0.5).all()
    assert (np.mean(spread, axis=0) < 2).all()
