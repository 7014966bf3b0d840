"""Normalising and voice activity."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from timar_ros.errors import UserError
from timar_ros.streaming.activity import ActivityDetector
from timar_ros.streaming.normalise import ClipNormaliser, RunningNormaliser, make_normaliser


def babble(pattern, level=0.1, noise=0.0005, seed=0):
    """Speech-like sound [n]: for each character of the pattern half a second, '#' spoken, '.' not."""
    rng = np.random.default_rng(seed)
    n = 8000 * len(pattern)
    syllables = np.abs(np.sin(2 * np.pi * 2.3 * np.arange(n) / 16000)) ** 0.5
    spoken = np.repeat([c == "#" for c in pattern], 8000)
    return (rng.standard_normal(n) * syllables * level * spoken + noise * rng.standard_normal(n)).astype(np.float32)


def scales(speech, normaliser=None):
    """The scale after each second."""
    normaliser, detector = normaliser or RunningNormaliser(), ActivityDetector()
    made = []
    for start in range(0, len(speech) - 15999, 16000):
        turn = speech[start : start + 16000]
        normaliser.apply(turn, detector.process(turn))
        made.append(normaliser.scale)
    return np.array(made)


def decibels(ratio):
    return 20 * np.log10(ratio)


def test_clip_is_zero_mean_and_unit_variance_of_the_whole():
    clip = babble("##..##..") + 0.05
    normaliser = ClipNormaliser(clip)
    turns = [normaliser.apply(t, np.zeros(25, bool)) for t in clip.reshape(-1, 16000)]
    whole = np.concatenate(turns)
    assert whole.dtype == np.float32
    assert abs(whole.mean()) < 1e-4
    assert whole.std() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("pattern", ["#.##..##.#..####" * 3, "....####....####" * 3, "########.#######" * 3])
def test_running_comes_to_the_clips_scale(pattern):
    speech = babble(pattern)
    error = decibels(scales(speech) / speech.std())
    assert np.abs(error[-6:]).max() < 2.0
    assert np.abs(error).max() < 5.0


@pytest.mark.parametrize("level", [0.01, 0.03, 0.3])
def test_running_finds_another_microphones_level(level):
    speech = babble("##.###.##.#.####" * 2, level=level, noise=level / 200)
    error = decibels(scales(speech) / speech.std())
    assert np.abs(error[4:]).max() < 4.0


def test_silence_does_not_drive_the_gain_up():
    """Two minutes of a listener's noise, then a word: it must not come out far louder than words before."""
    speech = babble("####" + "." * 240 + "####")
    scale = scales(speech)
    assert decibels(scale[1] / scale[-3]) < 5.0
    noise = np.abs(speech[80 * 16000 : 81 * 16000]).max() / scale[80]
    assert noise < 0.1


def test_digital_silence_is_finite():
    scale = scales(np.zeros(16000 * 30, np.float32))
    assert np.isfinite(scale).all()
    assert scale.min() > 0.01


def test_running_is_causal():
    """What comes later changes nothing before."""
    one = babble("#.##..##" * 4, seed=1)
    other = np.concatenate([one[: 8 * 16000], babble("########" * 2, level=0.9, seed=2)])
    np.testing.assert_array_equal(scales(one)[:8], scales(other)[:8])


def test_running_removes_an_offset():
    speech = babble("##.#.###" * 20) + 0.02
    normaliser, detector = RunningNormaliser(), ActivityDetector()
    for turn in speech.reshape(-1, 16000):
        made = normaliser.apply(turn, detector.process(turn))
    assert abs(made.mean()) < 0.1


def test_a_turn_that_is_not_kept_leaves_no_trace():
    speech = babble("####").reshape(-1, 16000)
    one, two = RunningNormaliser(), RunningNormaliser()
    active = np.ones(25, bool)
    kept = one.apply(speech[0], active)
    np.testing.assert_array_equal(two.apply(speech[0], active, keep=False), kept)
    assert two.state_dict()["heard"].sum() == 0
    np.testing.assert_array_equal(two.apply(speech[0], active), kept)


def test_running_state_goes_on():
    speech = babble("#.##..##").reshape(-1, 16000)
    one = RunningNormaliser()
    active = np.ones(25, bool)
    for turn in speech[:2]:
        one.apply(turn, active)
    two = RunningNormaliser()
    two.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one.apply(speech[2], active), two.apply(speech[2], active))
    one.reset()
    assert one.state_dict()["heard"].sum() == 0


def test_make_normaliser():
    assert isinstance(make_normaliser("running"), RunningNormaliser)
    assert isinstance(make_normaliser("clip", np.ones(10, np.float32)), ClipNormaliser)
    with pytest.raises(UserError, match="whole recording"):
        make_normaliser("clip")
    with pytest.raises(UserError, match="running"):
        make_normaliser("loudness")


def test_running_against_clip_on_a_real_recording(shared):
    """Within 3 dB of the whole clip's scale from the first turn on, for both people."""
    import soundfile

    for speaker in (1, 2):
        path = shared / f"data/dualtalk_demo/UbjUDM1MiGE_sub_video_72_speaker{speaker}.wav"
        speech, rate = soundfile.read(path, dtype="float32")
        speech = soxr.resample(speech, rate, 16000)
        assert np.abs(decibels(scales(speech) / speech.std())).max() < 3.0


# Voice activity.


def test_activity_finds_words():
    pattern = "..##...###....#..####..."
    active = ActivityDetector().process(babble(pattern))
    truth = np.repeat([c == "#" for c in pattern], 8000)[320::640]
    assert np.mean(active == truth) > 0.85
    assert active[truth].mean() > 0.97


@pytest.mark.parametrize("gain", [0.03, 1.0, 3.0])
def test_activity_does_not_depend_on_the_level(gain):
    pattern = "..##...###....#..####..."
    speech = babble(pattern, level=0.1 * gain, noise=0.0005 * gain)
    truth = np.repeat([c == "#" for c in pattern], 8000)[320::640]
    assert np.mean(ActivityDetector().process(speech) == truth) > 0.8


def test_nobody_speaks_in_silence_or_steady_noise():
    assert not ActivityDetector().process(np.zeros(160000, np.float32)).any()
    noise = 0.01 * np.random.default_rng(0).standard_normal(160000).astype(np.float32)
    assert ActivityDetector().process(noise)[100:].mean() < 0.05


def test_activity_is_causal_and_does_not_depend_on_turns():
    speech = babble("..##.#.###..")
    whole = ActivityDetector().process(speech)
    detector = ActivityDetector()
    np.testing.assert_array_equal(whole, np.concatenate([detector.process(t) for t in speech.reshape(-1, 3200)]))
    changed = speech.copy()
    changed[48000:] = 0.5
    np.testing.assert_array_equal(ActivityDetector().process(changed)[:75], whole[:75])


def test_activity_state_goes_on():
    speech = babble("..##.#.#")
    one, two = ActivityDetector(), ActivityDetector()
    one.process(speech[:32000])
    two.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one.process(speech[32000:]), two.process(speech[32000:]))
    one.reset()
    np.testing.assert_array_equal(one.process(speech), ActivityDetector().process(speech))
