"""DualTalk folders: roles, clips, laziness."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from support.synth_factory import person, write_pair

from timar_ros.data.dualtalk_folder import Clip, DualTalkFolder, load_motion, map_array
from timar_ros.errors import UserError


@pytest.fixture
def data(tmp_path):
    write_pair(tmp_path / "train", "a", 1, 450)
    write_pair(tmp_path / "train", "b", 2, 250)
    return tmp_path


def test_clips_take_both_roles_and_are_different_pieces(data):
    folder = DualTalkFolder(data, "train", normalise=False)
    clips = folder.clips(seconds=8.0)
    assert [(c.pair.name, c.agent, c.start) for c in clips] == [
        ("a", 1, 0), ("a", 1, 200), ("a", 2, 0), ("a", 2, 200), ("b", 1, 0), ("b", 2, 0),
    ]  # fmt: skip
    items = [folder.load(clip) for clip in clips]
    # The first conversation's second clip is not its first: each holds its own part of the file.
    speech, motion = person(11, 450)
    np.testing.assert_allclose(items[1]["agent_speech"], speech[200 * 640 : 400 * 640], atol=2 / 32768)
    np.testing.assert_array_equal(items[1]["agent_motion"], motion[200:400])
    # The roles are the other way round for the other agent.
    for name in ("speech", "motion"):
        np.testing.assert_array_equal(items[0][f"user_{name}"], items[2][f"agent_{name}"])
    different = {items[i]["agent_motion"].tobytes() for i in range(6)}
    assert len(different) == 6


def test_hop_makes_clips_overlap_and_whole_files_are_given(data):
    folder = DualTalkFolder(data, "train")
    assert len([c for c in folder.clips(8.0, hop=2.0) if c.pair.name == "a"]) == 2 * 6
    whole = folder.clips(None)
    assert [(c.frames, c.start) for c in whole] == [(450, 0), (450, 0), (250, 0), (250, 0)]
    assert folder.load(whole[0])["user_speech"].shape == (450 * 640,)


def test_speech_is_normalised_over_the_whole_file_not_the_clip(data):
    folder = DualTalkFolder(data, "train", normalise=True)
    clip = folder.clips(8.0)[1]
    speech, _ = person(11, 450)
    expected = (speech - speech.mean()) / speech.std()
    np.testing.assert_allclose(folder.load(clip)["agent_speech"], expected[200 * 640 : 400 * 640], atol=2e-3)


def test_motion_is_mapped_not_read_and_in_timar_order(data):
    path = data / "train" / "a_speaker1.npz"
    assert isinstance(map_array(path, "exp"), np.memmap)
    with np.load(path) as arrays:
        frames = load_motion(path, 3, 5)
        np.testing.assert_array_equal(frames[:, 50:53], arrays["pose"][3:8, 3:])
        np.testing.assert_array_equal(frames[:, 53:], arrays["pose"][3:8, :3])
        np.savez_compressed(data / "packed.npz", exp=arrays["exp"], pose=arrays["pose"])
    np.testing.assert_array_equal(load_motion(data / "packed.npz", 3, 5), frames)


def test_the_shortest_file_decides_and_nothing_is_read_past_it(tmp_path):
    write_pair(tmp_path, "a", 1, 200)
    speech, rate = soundfile.read(tmp_path / "a_speaker2.wav")
    soundfile.write(tmp_path / "a_speaker2.wav", speech[: 198 * 640 + 100], rate)
    folder = DualTalkFolder(tmp_path, None)
    assert folder.clips(8.0) == []
    assert folder.clips(4.0)[-1].start == 0
    item = folder.load(folder.clips(None)[0])
    assert item["user_speech"].shape == (199 * 640,)
    assert not item["user_speech"][198 * 640 + 100 :].any()


def test_incomplete_pairs_are_left_out_and_told(data):
    (data / "train" / "b_speaker2.npz").unlink()
    folder = DualTalkFolder(data, "train")
    assert [p.name for p in folder.pairs] == ["a"]
    assert "b_speaker2.npz" in folder.faults[0]
    assert DualTalkFolder(data, "train", skip=frozenset("c")).pairs == folder.pairs
    with pytest.raises(UserError, match="no complete pair"):
        DualTalkFolder(data, "train", skip=frozenset("a"))


@pytest.mark.parametrize("fault", ["rate", "channels", "text", "pickle", "shape"])
def test_bad_files_get_one_clear_line(tmp_path, fault):
    write_pair(tmp_path, "a", 1, 200)
    wav, npz = tmp_path / "a_speaker1.wav", tmp_path / "a_speaker1.npz"
    speech, motion = person(11, 200)
    if fault == "rate":
        soundfile.write(wav, speech, 44100)
    elif fault == "channels":
        soundfile.write(wav, np.stack([speech] * 3, 1), 16000)
    elif fault == "text":
        npz.write_text("no archive")
    elif fault == "pickle":
        np.savez(npz, exp=np.array([{"a": 1}], object), pose=motion[:, :6])
    else:
        np.savez(npz, exp=motion[:, :49], pose=motion[:, :6])
    folder = DualTalkFolder(tmp_path, None)
    with pytest.raises(UserError, match=r"a_speaker1\.") as caught:
        [folder.load(clip) for clip in folder.clips(4.0)]
    assert "\n" not in str(caught.value)


def test_a_clip_may_start_anywhere(data):
    folder = DualTalkFolder(data, "train", normalise=False)
    clip = Clip(folder.pairs[0], 2, 37, 100)
    _, motion = person(12, 450)
    np.testing.assert_array_equal(folder.load(clip)["agent_motion"], motion[37:137])
    assert clip.name == "a_speaker2_000037"


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        DualTalkFolder(tmp_path / "nowhere", "train")


def test_real_recording_is_read(shared):
    motion = load_motion(shared / "data" / "dualtalk_demo" / "UbjUDM1MiGE_sub_video_72_speaker2.npz")
    assert motion.shape == (587, 56)
    # Jaw opening has a mean of 0.166 rad in that clip, head pitch of -0.10.
    assert motion[:, 50].mean() == pytest.approx(0.166, abs=0.001)
    assert motion[:, 53].mean() == pytest.approx(-0.10, abs=0.01)
