"""What a recorded run is worth: every number against a run whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import bag_factory as factory

from timar_ros.bags.recording import Joints, Recording, load_recording
from timar_ros.cli.main import main
from timar_ros.data.motion_files import write_motion
from timar_ros.evaluation.bench.robustness import disturbed, items_of
from timar_ros.evaluation.metrics import bag_metrics, conversation_signals
from timar_ros.evaluation.metrics.run_comparison import bootstrap, compare

FPS = 25


def syllables(seconds: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A voice whose level goes up and down at random, and the opening (per frame) that it goes with."""
    generator = np.random.default_rng(seed)
    count = round(seconds * FPS)
    opening = np.clip(np.convolve(generator.normal(size=count), np.hanning(7), "same"), 0, None)
    level = np.interp(np.arange(count * 640) / 640, np.arange(count), opening)
    return (0.05 * level * generator.normal(size=len(level))).astype(np.float32), opening


@pytest.mark.parametrize("late", [-3, 0, 2, 5])
def test_lip_offset_is_the_shift_that_was_put_in(late: int) -> None:
    audio, opening = syllables(20.0)
    jaw = 0.1 * np.roll(opening, late)
    offset, peak, lags, values = conversation_signals.lip_offset(audio, jaw, np.ones(len(jaw), bool))
    assert offset == pytest.approx(late / FPS, abs=0.012)
    assert peak > 0.7
    assert len(lags) == len(values)


def test_lip_offset_of_silence_or_a_still_jaw_is_unknown() -> None:
    audio, opening = syllables(5.0)
    assert np.isnan(conversation_signals.lip_offset(np.zeros_like(audio), opening)[0])
    assert np.isnan(conversation_signals.lip_offset(audio, np.zeros(len(opening)), np.ones(len(opening), bool))[0])


def test_nods_are_counted_once_each() -> None:
    time = np.arange(40 * FPS) / FPS
    pitch = 0.05 * np.sin(2 * np.pi * 0.05 * time)  # slow sway is no nod
    for start in (5.0, 15.0, 30.0):
        inside = (time >= start) & (time < start + 1.0)
        pitch[inside] += 0.08 * np.sin(2 * np.pi * 2.0 * (time[inside] - start))
    found = conversation_signals.nods(pitch)
    assert [round((a + b) / 2 / FPS) for a, b in found] == [5, 15, 30] or len(found) == 3


def test_seam_ratio_sees_a_step_at_the_borders_only() -> None:
    generator = np.random.default_rng(0)
    smooth = np.cumsum(generator.normal(size=(200, 6)), axis=0)
    assert conversation_signals.seam_ratio(smooth, 25) == pytest.approx(1.0, abs=0.35)
    stepped = smooth + np.repeat(generator.normal(0, 20, (8, 6)), 25, axis=0)
    assert conversation_signals.seam_ratio(stepped, 25) > 5
    assert np.isnan(conversation_signals.seam_ratio(smooth[:20], 25))


def test_jerk_and_speed_of_a_known_curve() -> None:
    time = np.arange(100) / 100
    cubic = (2.0 * time**3)[:, None]
    np.testing.assert_allclose(conversation_signals.jerk(cubic, 100.0), 12.0, rtol=1e-6)
    np.testing.assert_allclose(conversation_signals.speed(3.0 * time[:, None], 100.0), 3.0, rtol=1e-9)


def test_a_run_is_measured(tmp_path: Path) -> None:
    factory.write_bag(tmp_path / "bag", 12.0, dropped=(5,))
    result = bag_metrics.measure(load_recording(tmp_path / "bag"))
    assert result["run"]["turns"] == 12
    assert result["run"]["dropped_turns"] == 1
    assert result["latency"]["response_p50"] == pytest.approx(0.07, abs=0.012)
    assert result["latency"]["end_to_end_p50"] == pytest.approx(0.08, abs=0.012)
    assert result["latency"]["margin_min"] == pytest.approx(0.3 - 0.09, abs=0.012)
    assert result["latency"]["late_turns"] == 0
    assert abs(result["motion"]["lip_offset"]) < 0.06
    assert result["motion"]["jaw_speed_speaking"] > 3 * result["motion"]["jaw_speed_listening"]
    assert result["motion"]["nods_listening"] > 5
    assert result["robot"]["limit_violations"] == 0
    for group in result:
        assert bag_metrics.rows(result, group)
    json.dumps(bag_metrics.as_json(result), allow_nan=False)


@pytest.mark.parametrize("delay", [0.0, 0.32])
def test_the_jaw_is_held_against_the_voice_as_it_is_heard(tmp_path: Path, delay: float) -> None:
    """Rolling mode: speech ahead of its time is heard undelayed, whatever delay the other speech has."""
    info = {"mode": "rolling", "playback_delay": 0.32}
    factory.write_bag(tmp_path / "bag", 12.0, info=info, voice_delay=delay)
    recording = load_recording(tmp_path / "bag")
    assert recording.playback_delay == pytest.approx(0.32)
    assert abs(bag_metrics.measure(recording)["motion"]["lip_offset"]) < 0.06


@pytest.mark.parametrize(("robot", "found"), [("romeo", "romeo"), ("timar_head", "timar_head"), ("icub", None)])
def test_robots_with_joints_of_the_same_names_are_not_guessed(robot: str, found: str | None) -> None:
    names = bag_metrics.load_profile(robot).names
    joints = Joints(names, np.zeros(1), np.zeros((1, len(names))), np.zeros((1, len(names))))
    recording = Recording("bag", Path("bag"), 0, 1.0, 0.0, {}, joints=joints)
    profile = bag_metrics.find_profile(recording)
    assert (profile.name if profile else None) == found
    assert (bag_metrics.ambiguity(recording) is None) == (found is not None)
    recording.robot = robot
    named = bag_metrics.find_profile(recording)
    assert named is not None and named.name == robot
    assert bag_metrics.ambiguity(recording) is None


def test_limits_are_held_against_the_profile() -> None:
    profile = next(p for name in bag_metrics.list_profiles() if (p := bag_metrics.load_profile(name)).neck)
    joint = profile.neck[0]
    time = np.arange(100) / 100
    names = [j.name for j in profile.joints]
    position = np.tile([j.neutral for j in profile.joints], (100, 1))
    velocity = np.zeros_like(position)
    joints = Joints(names, time, position, velocity)
    at_rest = bag_metrics._robot(joints, None, profile)
    assert (at_rest["limit_violations"], at_rest["range_used"]) == (0, 0)
    position[5, 0] = joint.neutral + 0.5 * (joint.upper - joint.neutral)
    assert bag_metrics._robot(joints, None, profile)["range_used"] == pytest.approx(0.5)
    position[10:13, 0] = joint.upper + 0.01
    velocity[20, 0] = 1.1 * joint.velocity
    found = bag_metrics._robot(joints, None, profile)
    assert (found["limit_violations"], found["speed_violations"]) == (3, 1)
    assert found["range_used"] > 1
    assert found["speed_used"] == pytest.approx(1.1)


def test_tracking_error_at_the_commands_times() -> None:
    time = np.arange(11) / 10
    measured = Joints(["a", "b"], time, np.stack([time, 2 * time], axis=1), np.zeros((11, 2)))
    asked = Joints(["b"], np.array([0.25, 0.55, 3.0]), np.array([[0.4], [1.1], [0.0]]), np.zeros((3, 1)))
    errors = bag_metrics.tracking_error(measured, asked)
    np.testing.assert_allclose(errors[:2, 0], [0.1, 0.0], atol=1e-12)
    assert np.isnan(errors[2, 0])  # beyond what was measured


def test_truth_from_a_file_and_from_a_topic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="the diversity metric needs scikit-learn")
    frames = factory.motion(6.0, "agent")
    factory.write_bag(tmp_path / "bag", 6.0)
    write_motion(tmp_path / "truth.npz", frames)
    for truth in (str(tmp_path / "truth.npz"), "user/motion"):
        code = main(
            ["evaluate", "--bag", str(tmp_path / "bag"), "--truth", truth, "--json", str(tmp_path / "out.json")]
        )
        assert code == 0
        found = json.loads((tmp_path / "out.json").read_text())["truth"]
        # The bag's motion is the first truth, and not the second.
        assert (found["mse_exp"] < 1e-9) == truth.endswith(".npz")
    assert "Against the truth" in capsys.readouterr().out


def test_comparison_finds_the_difference_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = factory.motion(20.0, "agent")
    livelier = frames.copy()
    livelier[:, 50:53] *= 1.5
    factory.write_bag(tmp_path / "a", 20.0, agent_frames=frames)
    factory.write_bag(tmp_path / "b", 20.0, agent_frames=livelier)
    a, b = load_recording(tmp_path / "a"), load_recording(tmp_path / "b")
    found = {one.key: one for one in compare(a, b)}
    jaw = found["jaw_speed"]
    assert jaw.certain
    assert jaw.low < jaw.difference < jaw.high
    assert jaw.b == pytest.approx(1.5 * jaw.a, rel=1e-4)
    assert not found["head_speed"].certain
    assert found["head_speed"].difference == pytest.approx(0.0, abs=1e-9)
    assert compare(a, b) == compare(a, b)  # seeded
    assert main(["evaluate", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "differs" in capsys.readouterr().out


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        low, high = bootstrap(generator.normal(1.0, 2.0, 30), generator, 400)
        inside += low <= 1.0 <= high
    assert 0.88 < inside / 200 < 0.99


def test_disturbances_change_what_they_say(tmp_path: Path) -> None:
    factory.write_bag(tmp_path / "bag", 6.0, joints=False)
    ((_, item, has_truth),) = items_of(tmp_path / "bag")
    assert not has_truth
    mixed = disturbed(item, "overlap", 0.0, 1.0, 0)
    np.testing.assert_allclose(mixed["user_speech"], item["user_speech"] + item["agent_speech"], atol=1e-6)
    cut = disturbed(item, "miscut", 0.25, 1.0, 0)
    np.testing.assert_array_equal(cut["agent_speech"], item["agent_speech"][6 * 640 :])
    np.testing.assert_array_equal(cut["user_motion"], item["user_motion"][6:])


@pytest.mark.slow
def test_robustness_gives_a_table_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the pipeline needs torch")
    factory.write_bag(tmp_path / "bag", 3.0, joints=False)
    page, numbers = tmp_path / "page.html", tmp_path / "rows.json"
    arguments = ["evaluate", "--robustness", str(tmp_path / "bag"), "--model", "random-mini"]
    assert main([*arguments, "--plot", str(page), "--json", str(numbers)]) == 0
    rows = json.loads(numbers.read_text())["rows"]
    assert rows[0]["values"]["drift_exp"] == 0.0
    assert all(row["values"]["drift_exp"] > 0 for row in rows[1:] if row["disturbance"] != "drop_motion")
    assert "SNR" in capsys.readouterr().out
    assert "Robustness" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [["--bag", "nowhere"], ["--bag", "x", "--robustness", "y"], ["--compare", "nowhere", "neither"]],
)
def test_bad_input_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments]) == 2
    assert capsys.readouterr().err.startswith("timar evaluate: error: ")
