"""The parts of the live page that need neither ROS nor a browser: commands, figures, sound, motion."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timar_ros.errors import UserError
from timar_ros.live.page_commands import MOST_SAMPLES, STYLES, Press, Style, read_command, read_sound
from timar_ros.live.page_figures import Latencies, Levels, face_pose, level, robot_pose
from timar_ros.live.page_microphone import PageMicrophone
from timar_ros.live.shown_motion import ShownMotion
from timar_ros.motion import JAW_OPENING, MOTION_SIZE
from timar_ros.retarget.profile import load_profile
from timar_ros.streaming.codec import Motion

SECOND = 1_000_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NEAR = st.fixed_dictionaries(
    {"do": st.sampled_from(["style", "microphone", "record", "reset", "play"])},
    optional={
        "name": st.sampled_from([*STYLES, "seed"]) | JSON,
        "value": JSON,
        "on": JSON,
        "role": st.sampled_from(["user", "agent", "off"]) | JSON,
        "rate": JSON,
    },
)


def motion(seconds: float, opening: float, *, stamp_ns: int = 0, speaking: int = 1) -> Motion:
    frames = np.zeros((round(seconds * 25), MOTION_SIZE), np.float32)
    frames[:, JAW_OPENING] = opening
    return Motion(stamp_ns, 25.0, 0, frames, np.full(len(frames), speaking, np.uint8))


@given(st.text() | (JSON | NEAR).map(json.dumps))
def test_a_page_can_send_anything(text: str) -> None:
    try:
        command = read_command(text)
    except UserError:
        return
    if isinstance(command, Style):
        low, high = STYLES[command.name]
        assert low <= command.value <= high
    else:
        assert 8000 <= command.rate <= 192_000
        assert isinstance(command.on, bool)


def test_commands_are_understood() -> None:
    assert read_command('{"do": "cancel"}') == Press("cancel")
    assert read_command('{"do": "record", "on": false}') == Press("record", on=False)
    assert read_command('{"do": "style", "name": "guidance", "value": 2}') == Style("guidance", 2.0)
    microphone = read_command('{"do": "microphone", "role": "agent", "rate": 44100}')
    assert microphone == Press("microphone", on=True, role="agent", rate=44100)
    for deep in ("[" * 100_000, "9" * 10_000, "{}", '{"do": ["reset"]}'):
        with pytest.raises(UserError):
            read_command(deep)


@given(st.binary(max_size=2 * MOST_SAMPLES + 4))
def test_sound_is_finite_or_refused(data: bytes) -> None:
    try:
        samples = read_sound(data)
    except UserError:
        assert not data or len(data) % 2 or len(data) > 2 * MOST_SAMPLES
        return
    assert samples.dtype == np.float32
    assert (np.abs(samples) <= 1.0).all()


def test_a_microphones_stamps_follow_its_count() -> None:
    """Messages that come unevenly make even stamps; a pause begins another stream."""
    microphone = PageMicrophone(48_000, 7)
    block = np.zeros(960, np.float32)
    pieces = [microphone.take(block, round((k * 0.02 + 0.01 * (k % 3)) * 1e9)) for k in range(1, 50)]
    assert np.diff([piece.stamp_ns for piece in pieces]) == pytest.approx(20_000_000, abs=1)
    assert [piece.index for piece in pieces[:3]] == [0, 960, 1920]
    later = microphone.take(block, 5 * SECOND)
    assert (later.stream_id, later.index, later.stamp_ns) == (8, 0, 5 * SECOND - 20_000_000)


def test_the_frame_of_now_is_shown() -> None:
    shown = ShownMotion()
    assert shown.at(0) is None
    shown.push(motion(1.0, 0.1, stamp_ns=SECOND))
    shown.push(motion(1.0, 0.3, stamp_ns=2 * SECOND))
    assert shown.at(SECOND - 1) is None
    frame, known, speaking = shown.at(SECOND + 500_000_000)
    assert (frame[JAW_OPENING], known, speaking) == (pytest.approx(0.1), True, True)
    # Half-way between the last frame of the one and the first of the other.
    frame, _, _ = shown.at(2 * SECOND - 20_000_000)
    assert frame[JAW_OPENING] == pytest.approx(0.2)
    frame, known, speaking = shown.at(10 * SECOND)
    assert (frame[JAW_OPENING], known, speaking) == (0.0, False, False)
    # What comes anew replaces what was to be shown from then on; what was cut is gone.
    shown.push(motion(1.0, 0.5, stamp_ns=2 * SECOND))
    assert shown.at(2 * SECOND + 100_000_000)[0][JAW_OPENING] == pytest.approx(0.5)
    shown.cut(2 * SECOND)
    assert shown.at(2 * SECOND + 100_000_000)[0][JAW_OPENING] == pytest.approx(0.1)


def test_what_is_not_known_is_no_number_on_the_page() -> None:
    shown = ShownMotion()
    unknown = np.full((25, MOTION_SIZE), np.nan, np.float32)
    shown.push(Motion(0, 25.0, 0, unknown, None))
    face = face_pose(shown, SECOND // 2)
    assert np.isfinite(face["pose"]).all()
    json.dumps(face, allow_nan=False)


def test_levels_come_when_they_are_heard() -> None:
    assert level([]) == level(np.zeros(100)) == 0.0
    assert level(np.ones(100)) == 1.0
    assert level(np.full(100, 10 ** (-30 / 20))) == pytest.approx(0.5)
    assert level([math.nan]) == 0.0
    levels = Levels()
    levels.push(SECOND, 0.5)
    assert levels.at(SECOND - 1) == 0.0
    assert levels.at(SECOND + 1) == 0.5
    assert levels.at(2 * SECOND) == 0.0


def test_latencies_are_of_turns_that_were_seen() -> None:
    latencies = Latencies()
    assert latencies.percentile(50) is None
    latencies.answer(5, 1.0)
    assert latencies.answered == 0
    for turn in range(3):
        latencies.ask(turn, turn)
        latencies.answer(turn, turn + 0.02)
    assert (latencies.answered, latencies.percentile(50)) == (3, 20.0)


def test_a_robots_pose_is_its_joints() -> None:
    profile = load_profile("timar_head")
    assert robot_pose(profile, {}) == [0.0] * 9
    pose = robot_pose(profile, {"neck_yaw": 0.3, "jaw": profile.jaw.open_position})
    assert pose[1] == pytest.approx(0.3)
    assert pose[3] == pytest.approx(profile.jaw.full_open)
