"""Audio files."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from timar_ros.data.audio_files import (
    load_audio,
    load_conversation,
    read_audio,
    resample_audio,
    write_audio,
)
from timar_ros.errors import UserError


def tone(seconds, rate, frequency=300.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_round_trip(tmp_path, suffix):
    samples = tone(0.5, 16000)
    write_audio(tmp_path / f"a.{suffix}", samples)
    back = read_audio(tmp_path / f"a.{suffix}")
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, samples, atol=1 / 32768)
    assert [p.name for p in tmp_path.iterdir()] == [f"a.{suffix}"]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_read_resamples_without_delay(tmp_path, rate):
    write_audio(tmp_path / "a.wav", tone(1.0, rate), rate)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav")[800:-800], tone(1.0, 16000)[800:-800], atol=2e-3)
    samples, own = load_audio(tmp_path / "a.wav")
    assert (own, len(samples)) == (rate, rate)


def test_channels_are_averaged_or_kept_apart(tmp_path):
    left, right = tone(0.2, 16000), tone(0.2, 16000, 500.0)
    write_audio(tmp_path / "a.wav", np.stack([left, right], axis=1))
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-4)
    user, agent, _ = load_conversation(tmp_path / "a.wav")
    np.testing.assert_allclose(user, left, atol=1e-4)
    np.testing.assert_allclose(agent, right, atol=1e-4)


def test_samples_are_clipped_when_written(tmp_path):
    write_audio(tmp_path / "a.wav", np.array([3.0, -3.0], np.float32))
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), [1.0, -1.0], atol=1e-4)


def test_resampling_to_the_same_rate_changes_nothing():
    samples = tone(0.1, 16000)
    assert resample_audio(samples, 16000, 16000) is samples


@pytest.mark.parametrize("what", ["missing", "folder", "text", "empty", "nan", "mono"])
def test_bad_files_are_one_clear_line(tmp_path, what):
    path = tmp_path / "a.wav"
    if what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("this is no audio")
    elif what == "empty":
        soundfile.write(path, np.zeros(0, np.float32), 16000)
    elif what == "nan":
        soundfile.write(path, np.array([0, np.nan], np.float32), 16000, subtype="FLOAT")
    elif what == "mono":
        soundfile.write(path, tone(0.1, 16000), 16000)
    expected = {
        "missing": "not found",
        "folder": "not a file",
        "text": "cannot read",
        "empty": "empty",
        "nan": "not finite",
        "mono": "stereo",
    }[what]
    with pytest.raises(UserError, match=expected) as error:
        load_conversation(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_targets(tmp_path):
    with pytest.raises(UserError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / "a.xyz", tone(0.1, 16000))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_audio(tmp_path / "file" / "a.wav", tone(0.1, 16000))
    (tmp_path / "b.wav").mkdir()
    with pytest.raises(UserError, match="folder"):
        write_audio(tmp_path / "b.wav", tone(0.1, 16000))
