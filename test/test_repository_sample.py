"""The sample conversation in the repository is what the demo needs."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from timar_ros.data.audio_files import load_conversation
from timar_ros.data.motion_files import read_motion
from timar_ros.data.motion_statistics import describe, speaking


def test_sample_is_a_whole_conversation(repository):
    folder = repository / "samples"
    info = soundfile.info(folder / "conversation.flac")
    assert (info.samplerate, info.channels) == (16000, 2)
    user, agent, _ = load_conversation(folder / "conversation.flac")
    assert len(user) >= 30 * 16000
    motion = {name: read_motion(folder / f"conversation_{name}.npz") for name in ("user", "agent")}
    for name, own, other in (("user", user, agent), ("agent", agent, user)):
        assert motion[name].shape == (len(user) // 640, 56)
        assert np.isfinite(motion[name]).all()
        figures = describe(motion[name], own, other)
        assert 0.25 < figures["speaking"] < 0.75
        assert figures["jaw_energy_best"] > 0.5
        assert figures["nod_ratio"] > 1.5
    first, second = speaking(user), speaking(agent)
    # Overlaps and both silent, and the floor changes hands.
    assert 0.02 < (first & second).mean() < 0.3
    assert (~first & ~second).mean() > 0.03
    lone = np.where(first & ~second, 1, np.where(second & ~first, 2, 0))
    lone = lone[lone > 0]
    assert (np.diff(lone) != 0).sum() >= 8
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_the_two_voices_differ_clearly(repository):
    """In pitch: the strongest period of each one's autocorrelation, over the voiced parts."""
    pitches = []
    for speech in load_conversation(repository / "samples" / "conversation.flac")[:2]:
        active = np.repeat(speaking(speech), 640)
        voiced = speech[: len(active)][active]
        spectrum = (
            np.abs(
                np.fft.rfft(
                    voiced.reshape(-1, 640)[: len(voiced) // 640].reshape(-1)[: 640 * 300].reshape(-1, 3200), 6400
                )
            )
            ** 2
        )
        correlation = np.fft.irfft(spectrum / spectrum.sum(1, keepdims=True)).mean(0)
        lags = np.arange(16000 // 300, 16000 // 70)
        pitches.append(16000 / lags[np.argmax(correlation[lags])])
    assert pitches[1] / pitches[0] > 1.4
    assert pitches[0] == pytest.approx(100, rel=0.25)
