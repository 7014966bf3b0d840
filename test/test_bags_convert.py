"""Bags as data and data as bags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import bag_factory as factory

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_convert import TRUTH_TOPIC, from_bag, to_bag
from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.recording import load_recording
from timar_ros.data.audio_files import read_audio, write_audio
from timar_ros.data.motion_files import read_motion, write_motion
from timar_ros.errors import UserError


def write_pair(folder: Path, name: str = "talk", seconds: float = 4.0) -> None:
    for number, role in ((1, "user"), (2, "agent")):
        write_audio(folder / f"{name}_speaker{number}.wav", factory.voice(seconds, role))
        write_motion(folder / f"{name}_speaker{number}.npz", factory.motion(seconds, role))


def test_a_pair_survives_the_way_through_a_bag(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair")
    to_bag(tmp_path / "pair", "talk", tmp_path / "bag")
    made = from_bag(tmp_path / "bag", tmp_path / "again", truth=TRUTH_TOPIC)
    assert made.notes == []
    assert [path.name for path in made.files] == [f"bag_speaker{n}{end}" for n in (1, 2) for end in (".wav", ".npz")]
    for number in (1, 2):
        before, after = tmp_path / "pair" / f"talk_speaker{number}", tmp_path / "again" / f"bag_speaker{number}"
        np.testing.assert_allclose(read_audio(f"{after}.wav"), read_audio(f"{before}.wav"), atol=2e-4)
        np.testing.assert_array_equal(read_motion(f"{after}.npz"), read_motion(f"{before}.npz"))


def test_the_speakers_can_be_swapped(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair")
    to_bag(tmp_path / "pair", "talk", tmp_path / "bag", swap=True)
    recording = load_recording(tmp_path / "bag")
    assert recording.user_motion is not None
    np.testing.assert_array_equal(recording.user_motion.at_rate(4.0), factory.motion(4.0, "agent"))


def test_what_was_not_tracked_is_held_and_told(tmp_path: Path) -> None:
    frames = factory.motion(3.0, "user")
    frames[10:20] = np.nan
    frames[:2, :50] = np.nan
    factory.write_bag(tmp_path / "bag", 3.0, user_frames=frames, joints=False)
    made = from_bag(tmp_path / "bag", tmp_path / "pair", "x")  # one frame late is no gap
    assert any("11 of 75 frames" in note for note in made.notes)
    written = read_motion(tmp_path / "pair" / "x_speaker1.npz")
    np.testing.assert_array_equal(written[10:20], np.repeat(frames[9:10], 10, axis=0))
    np.testing.assert_array_equal(written[0, :50], frames[2, :50])
    np.testing.assert_array_equal(written[20:], frames[20:])


def test_a_bag_without_an_agents_voice_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair")
    (tmp_path / "pair" / "talk_speaker2.wav").unlink()
    with pytest.raises(UserError):
        to_bag(tmp_path / "pair", "talk", tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_the_truth_is_on_a_topic_of_its_own(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair")
    to_bag(tmp_path / "pair", "talk", tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        assert bag.find("agent/motion") is None
        frames = np.concatenate([bag_messages.frames_of(m) for _, _, m in bag.messages({TRUTH_TOPIC})])
    np.testing.assert_array_equal(frames, factory.motion(4.0, "agent"))
