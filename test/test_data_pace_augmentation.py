"""Changing a clip's pace keeps speech and motion together."""

from __future__ import annotations

import numpy as np
import pytest
from support.synth_factory import person

from timar_ros.data.dualtalk_folder import Item
from timar_ros.data.pace_augmentation import change_speed
from timar_ros.errors import UserError


def clip_with_event(frame, frames=200):
    """A click and a jaw opening at one frame."""
    speech, motion = np.zeros(640 * frames, np.float32), np.zeros((frames, 56), np.float32)
    speech[640 * frame : 640 * frame + 640] = 0.5
    motion[frame - 2 : frame + 3, 50] = 0.2
    return Item(user_speech=speech, agent_speech=speech, user_motion=motion, agent_motion=motion)


@pytest.mark.parametrize("frames", [160, 180, 200, 220, 250])
def test_speech_and_motion_stay_together(frames):
    made = change_speed(clip_with_event(100), frames)
    assert made["agent_speech"].shape == (640 * frames,)
    assert made["agent_motion"].shape == (frames, 56)
    heard = np.average(np.arange(640 * frames) / 640, weights=made["user_speech"] ** 2)
    seen = np.average(np.arange(frames) + 0.5, weights=made["user_motion"][:, 50])
    assert heard == pytest.approx(100.5 * frames / 200, abs=0.2)
    assert seen == pytest.approx(heard, abs=0.2)


def test_the_same_pace_changes_nothing():
    item = clip_with_event(50)
    made = change_speed(item, 200)
    for name in item:
        np.testing.assert_allclose(made[name], item[name], atol=1e-6)


def test_frames_that_were_not_tracked_stay_so():
    item = clip_with_event(50)
    item["user_motion"] = item["user_motion"].copy()
    item["user_motion"][100:150] = np.nan
    made = change_speed(item, 220)
    lost = np.isnan(made["user_motion"]).all(axis=1)
    assert np.abs(lost.mean() - 0.25) < 0.02
    assert np.isfinite(made["agent_motion"]).all()


def test_pitch_moves_with_the_pace():
    time = np.arange(640 * 200) / 16000
    _, motion = person(1, 200)
    tone = np.sin(2 * np.pi * 400 * time).astype(np.float32)
    item = Item(user_speech=tone, agent_speech=tone, user_motion=motion, agent_motion=motion)
    made = change_speed(item, 160)["user_speech"]
    assert np.argmax(np.abs(np.fft.rfft(made))) * 16000 / len(made) == pytest.approx(500, abs=1)


def test_an_inhuman_pace_is_refused():
    with pytest.raises(UserError, match="not human"):
        change_speed(clip_with_event(100), 100)
