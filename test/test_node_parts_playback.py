"""The order in which a recording is played: complete, in time, and ahead where it is to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timar_ros.data.audio_files import write_audio
from timar_ros.data.motion_files import write_motion
from timar_ros.errors import UserError
from timar_ros.node_parts.playback import Recording, load_recording, steps


def a_recording(user=5000, agent=7000, rate=4000, frames=None, motion_rate=25.0):
    count = np.arange
    motion = None if frames is None else np.repeat(count(frames, dtype=np.float32)[:, None], 56, axis=1)
    return Recording(count(user, dtype=np.float32), rate, count(agent, dtype=np.float32), rate, motion, motion_rate)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20000),
    st.integers(1, 20000),
    st.sampled_from([4000, 11025, 16000, 44100]),
    st.sampled_from([0.01, 0.02, 0.0333, 0.5]),
    st.sampled_from([0.0, 0.25, 1.2]),
)
def test_every_sample_is_played_once_when_it_is_over(user, agent, rate, chunk, lead):
    recording = a_recording(user, agent, rate)
    played = {"user": [], "agent": []}
    ends = {"user": 0, "agent": 0}
    for step in steps(recording, chunk, lead):
        for piece in step.pieces:
            assert piece.index == sum(map(len, played[piece.role]))
            played[piece.role].append(piece.samples)
            over = (piece.index + len(piece.samples)) / rate - (lead if piece.role == "agent" else 0.0)
            assert step.seconds - chunk - 1.0 / rate <= over <= step.seconds + 1.0 / rate
            ends[piece.role] += piece.end
    for role, samples in (("user", recording.user), ("agent", recording.agent)):
        np.testing.assert_array_equal(np.concatenate(played[role]), samples)
    assert ends == {"user": 1, "agent": 1}


@pytest.mark.parametrize("motion_rate", [25.0, 30.0, 60.0])
@pytest.mark.parametrize("lead", [0.0, 1.2])
def test_every_frame_is_played_once_in_its_time(motion_rate, lead):
    recording = a_recording(8000, 8000, frames=round(2 * motion_rate), motion_rate=motion_rate)
    got = []
    for step in steps(recording, 0.02, lead):
        if step.frames is not None:
            for number, frame in enumerate(step.frames):
                moment = (step.first_frame + number) / motion_rate
                assert frame[0] == step.first_frame + number
                assert moment <= step.seconds + 1e-6
                assert step.seconds - moment < 0.02 + 1e-6 or step.first_frame == 0
                got.append(int(frame[0]))
    assert got == list(range(round(2 * motion_rate)))


def test_motion_beyond_the_audio_is_not_played():
    got = [step for step in steps(a_recording(4000, 4000, frames=500), 0.02) if step.frames is not None]
    assert max(step.first_frame + len(step.frames) for step in got) == 26


def test_recordings_are_read_from_one_file_or_two(tmp_path):
    stereo = np.stack([np.full(800, 0.25), np.full(800, -0.5)], axis=1).astype(np.float32)
    write_audio(tmp_path / "both.wav", stereo, 8000)
    write_audio(tmp_path / "user.wav", stereo[:, 0], 8000)
    write_audio(tmp_path / "agent.wav", stereo[:, 1], 8000)
    write_motion(tmp_path / "user.npz", np.zeros((3, 56), np.float32))
    one = load_recording(str(tmp_path / "both.wav"), "", "", str(tmp_path / "user.npz"))
    two = load_recording("", str(tmp_path / "user.wav"), str(tmp_path / "agent.wav"))
    for recording in (one, two):
        np.testing.assert_allclose(recording.user, 0.25, atol=1e-4)
        np.testing.assert_allclose(recording.agent, -0.5, atol=1e-4)
        assert recording.seconds == 0.1
    assert one.motion.shape == (3, 56)
    assert two.motion is None


@pytest.mark.parametrize("named", [("", "", ""), ("a.wav", "b.wav", ""), ("", "b.wav", ""), ("", "", "c.wav")])
def test_what_is_to_be_played_must_be_said_and_only_once(named):
    with pytest.raises(UserError, match=r"recording|missing"):
        load_recording(*named)
