"""The voice out of what a microphone gives: channel, anti-phase, silence, clipping, offset."""

from __future__ import annotations

import numpy as np
import pytest

from timar_ros.data.audio_files import load_audio, write_audio
from timar_ros.errors import UserError
from timar_ros.streaming.activity import ActivityDetector
from timar_ros.streaming.normalise import RunningNormaliser
from timar_ros.streaming.sound_intake import VoiceIntake
from timar_ros.streaming.turns.turn_builder import TurnBuilder


def voice(seconds: float = 4.0, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """Noise in syllables, at 16 kHz."""
    time = np.arange(round(16000 * seconds)) / 16000
    noise = np.random.default_rng(seed).normal(0.0, level, len(time))
    return (noise * (np.sin(2 * np.pi * 3 * time) > 0)).astype(np.float32)


def test_one_channel_of_an_array_is_heard():
    samples = np.stack([voice(seed=number) for number in range(6)], axis=1)
    np.testing.assert_array_equal(VoiceIntake(0).take(samples), samples[:, 0])
    np.testing.assert_array_equal(VoiceIntake(4).take(samples), samples[:, 4])
    np.testing.assert_array_equal(VoiceIntake().take(samples), samples.mean(axis=1, dtype=np.float32))
    with pytest.raises(UserError, match="channel 6 is wanted, but the sound has 6"):
        VoiceIntake(6).take(samples)


def test_channels_in_anti_phase_are_said_and_not_mixed():
    samples = np.stack([voice(), -voice()], axis=1)
    intake = VoiceIntake()
    heard = np.concatenate([intake.take(samples[first : first + 640]) for first in range(0, len(samples), 640)])
    np.testing.assert_array_equal(heard, samples[:, 0])
    assert intake.remarks() == ["the channels cancel each other (anti-phase): the first one is taken"]


def test_two_people_on_two_channels_do_not_cancel():
    intake = VoiceIntake()
    intake.take(np.stack([voice(), voice(seed=1)], axis=1))
    assert not intake.remarks()


@pytest.mark.parametrize(
    ("sound", "said"),
    [
        (np.zeros(16000, np.float32), "silence"),
        (np.clip(20.0 * voice(), -1.0, 1.0), "clipping"),
        (voice() + np.float32(0.3), "an offset of 0.30"),
    ],
)
def test_what_is_wrong_is_said_once_and_not_of_good_sound(sound, said):
    intake = VoiceIntake()
    intake.take(sound)
    remarks = intake.remarks()
    assert len(remarks) == 1
    assert remarks[0].startswith(said)
    assert not intake.remarks()
    intake.take(voice())
    assert not intake.remarks()


def test_a_file_in_anti_phase_is_heard_and_warned_of(tmp_path, caplog):
    write_audio(tmp_path / "inverted.wav", np.stack([voice(), -voice()], axis=1))
    samples, _ = load_audio(tmp_path / "inverted.wav")
    np.testing.assert_allclose(samples, voice(), atol=1e-4)
    assert "inverted.wav: the channels cancel each other" in caplog.text


def test_turns_hear_the_channel_that_is_chosen_and_say_what_is_wrong():
    builder = TurnBuilder(channel=2)
    samples = np.stack([np.zeros(48000, np.float32), np.zeros(48000, np.float32), voice(3.0)], axis=1)
    assert builder.add_audio("user", 0, 0, 16000, samples[:, :2]) is not None, "there is no channel 2"
    builder.add_audio("user", 0, 0, 16000, samples)
    builder.add_audio("agent", 0, 0, 16000, np.zeros(48000, np.float32))
    turns = builder.finish()
    np.testing.assert_array_equal(np.concatenate([turn.user_speech for turn in turns]), samples[:, 2])
    assert builder.remarks() == ["agent: silence: no sample beyond -80 dBFS"]


def normalised(speech: np.ndarray) -> np.ndarray:
    detector, normaliser = ActivityDetector(), RunningNormaliser()
    turns = speech.reshape(-1, 16000)
    return np.concatenate([normaliser.apply(turn, detector.process(turn)) for turn in turns])


@pytest.mark.parametrize("level", [0.02, 0.1])
@pytest.mark.parametrize("offset", [-0.3, 0.05, 0.5])
def test_an_offset_of_the_microphone_changes_nothing(level, offset):
    speech = voice(8.0, level)
    clean, shifted = normalised(speech), normalised(speech + np.float32(offset))
    # The first turn's mean is also of a word that it cuts.
    assert np.abs(clean - shifted).max() < 0.1 * clean.std()
    assert shifted[16000:].std() == pytest.approx(clean[16000:].std(), rel=0.02)
