"""The judge: what must please it does, and constants, copies and loud heads do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timar_ros.baselines.procedural import procedural, wobbler
from timar_ros.cli.main import main
from timar_ros.evaluation.judge import lines, measure
from timar_ros.evaluation.metrics import believable
from timar_ros.evaluation.metrics.believable import BARS, Talk
from timar_ros.evaluation.sounds import in_noise, music, song
from timar_ros.motion import HEAD, PITCH
from timar_ros.motion import JAW_OPENING as JAW

FRAMES = 750


def voices(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two people who take turns of 2 s with pauses of 1 s, in syllables of noise: user and agent."""
    rng = np.random.default_rng(seed)
    second = np.arange(FRAMES) / 25
    syllables = 0.3 + 0.7 * np.clip(np.sin(2 * np.pi * 3.1 * second + np.sin(second)), 0, 1)
    out = []
    for phase in (0.0, 3.0):
        on = (second + phase) % 6 < 2
        shape = np.repeat(np.where(on, syllables, 0.0), 640)
        out.append(0.1 * shape * rng.standard_normal(FRAMES * 640) + 1e-4 * rng.standard_normal(FRAMES * 640))
    return out[0].astype(np.float32), out[1].astype(np.float32)


@pytest.fixture(scope="module")
def talk() -> Talk:
    user, agent = voices()
    return Talk("two", user, agent)


def test_procedural_head_passes_where_rules_suffice_and_fails_where_not(talk: Talk) -> None:
    made = [procedural(talk.user, talk.agent, FRAMES, seed) for seed in (0, 1)]
    found = measure([talk], [[motion] for motion in made])
    held = {bar.key for bar in BARS if bar.key in found and bar.holds(found[bar.key])}
    assert {"lip_offset", "shut", "nods_more", "nods_elsewhere", "broken"} <= held
    assert procedural(talk.user, talk.agent, FRAMES, 1).tobytes() == made[1].tobytes()
    np.testing.assert_allclose(
        procedural(talk.user, talk.agent, FRAMES, 1, 2.0)[:, HEAD], 2 * made[1][:, HEAD], atol=1e-6
    )


def test_a_constant_a_copy_and_a_loud_head_do_not_please(talk: Talk) -> None:
    still = np.zeros((FRAMES, 56), np.float32)
    found = measure([talk], [[still], [still]])
    assert found["seeds_x"] == 1.0
    assert found["nods_more"] == 0.0
    assert np.isnan(found["lips"])
    # What is not there holds no bar.
    assert not any(bar.holds(found[bar.key]) for bar in BARS if bar.key in ("lips", "speed_cv", "slow", "seeds_x"))
    shaken = [wobbler(talk.user, talk.agent, FRAMES, seed) for seed in (0, 1)]
    loud = measure([talk], [[motion] for motion in shaken])
    bars = {bar.key: bar for bar in BARS}
    assert not bars["own_loudness"].holds(loud["own_loudness"])
    assert not bars["talking"].holds(loud["talking"])


@pytest.mark.parametrize("lag", [-3, 0, 3])
def test_a_late_jaw_is_late(talk: Talk, lag: int) -> None:
    motion = procedural(talk.user, talk.agent, FRAMES)
    before = believable.offset(talk.agent, motion)
    motion[:, JAW] = np.roll(motion[:, JAW], lag)
    assert believable.offset(talk.agent, motion) - before == pytest.approx(lag / 25, abs=0.015)


def test_an_open_mouth_in_silence_shows(talk: Talk) -> None:
    motion = procedural(talk.user, talk.agent, FRAMES)
    talks, _ = believable.activity(talk, FRAMES)
    assert believable.shut(talks, motion) < 0.05
    motion[:, JAW] += 0.1
    assert believable.shut(talks, motion) > 0.3


def test_nods_are_counted_where_they_are(talk: Talk) -> None:
    talks, heard = believable.activity(talk, FRAMES)
    motion = np.zeros((FRAMES, 56), np.float32)
    assert believable.visible_nods(motion, talks, heard).after == 0
    for end in believable.phrase_ends(heard):
        motion[end + 3 : end + 15, PITCH] = 0.06 * np.sin(np.pi * np.arange(12) / 12)[: FRAMES - end - 3]
    found = believable.visible_nods(motion, talks, heard)
    assert (found.ends, found.after, found.elsewhere) == (5, 1.0, 0.0)
    small = believable.visible_nods(0.3 * motion, talks, heard)
    assert small.after == 0


def test_shape_error_ignores_one_gain_and_nothing_else() -> None:
    motion = np.zeros((FRAMES, 56), np.float32)
    motion[:, HEAD] = np.random.default_rng(0).standard_normal((FRAMES, 3))
    power = believable.band_power(motion)
    assert believable.band_power(motion).sum() == pytest.approx(motion[:, HEAD].var(0).sum(), rel=0.8)
    assert believable.shape_error(power, 9 * power) == pytest.approx(0.0, abs=1e-9)
    other = power.copy()
    other[3] *= 16
    # A fourth of the cells is two octaves off.
    assert believable.shape_error(other, power) == pytest.approx(2 * np.sqrt(0.25 * 0.75))


def test_distances_are_of_size_and_without() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((FRAMES, 56)).astype(np.float32)
    double = truth.copy()
    double[:, HEAD] *= 2
    found = believable.distances(double, truth)
    assert found["fd_pose"] > 1
    assert found["fd_pose_equal"] == pytest.approx(0.0, abs=1e-3)
    assert found["fd_jaw"] == pytest.approx(0.0, abs=1e-6)


def test_broken_frames_are_counted(talk: Talk) -> None:
    motion = procedural(talk.user, talk.agent, FRAMES)
    motion[100:103, 5] = np.nan
    assert measure([talk], [[motion], [motion]])["broken"] == 6


def test_sounds_are_what_they_say() -> None:
    user, _ = voices()
    noisy = in_noise(user)
    added = noisy - user
    spoken = np.repeat(believable.voice_activity(user), 640)
    assert added.std() == pytest.approx(np.sqrt(np.square(user[: len(spoken)][spoken]).mean()), rel=0.05)
    for made in (music(8.0), song(8.0)):
        assert len(made) == 8 * 16000
        assert made.std() == pytest.approx(0.1, rel=0.01)
        # It comes and goes like speech: a mouth that follows loudness is caught.
        assert np.std(believable.loudness(made)) > 2
    assert np.array_equal(music(2.0), music(2.0))


def test_the_command_prints_baselines_beside_every_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], talk: Talk
) -> None:
    folder = tmp_path / "data" / "ood"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for speaker, voice in ((1, talk.user), (2, talk.agent)):
            soundfile.write(folder / f"{name}_speaker{speaker}.wav", voice, 16000)
            motion = procedural(talk.user, talk.agent, FRAMES, int(rng.integers(1000)))
            pose = np.concatenate([motion[:, HEAD], motion[:, 50:53]], axis=1)
            exp = rng.standard_normal((FRAMES, 50)).astype(np.float32)
            np.savez(folder / f"{name}_speaker{speaker}.npz", exp=exp, pose=pose)
    out, page = tmp_path / "judged.json", tmp_path / "judged.md"
    command = ["evaluate", "--believable", "--data", str(tmp_path / "data"), "--split", "ood"]
    assert main([*command, "--model", "random-mini", "--limit", "2", "--json", str(out), "--markdown", str(page)]) == 0
    found = json.loads(out.read_text())["data ood"]
    assert set(found) == {"random-mini", "procedural", "wobbler", "people"}
    assert found["random-mini"]["broken"] == 0
    assert found["random-mini"]["turn_ms"] > 0
    assert "dial" not in found["random-mini"]
    assert found["procedural"]["dial"] == pytest.approx(np.exp(0.9), rel=1e-3)
    assert all(bar.title in page.read_text() for bar in BARS if bar.key not in ("dial", "adapts"))
    assert len(lines({"x": {"lips": 0.3}})) == 1
    assert lines({"x": {"lips": 0.3}})[0][-1] == "0.30*"
    assert "procedural" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs conversations"),
        (["--recordings", "nowhere.wav"], "nowhere.wav"),
        (["--data", ".", "--seeds", "1"], "--seeds 1"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--believable", *arguments]) == 2
    assert said in capsys.readouterr().err
