"""The voice gate: closes the jaw without a voice, touches nothing else, and learns to tell a voice from music."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from support.tiny_models import tiny_model

from timar_ros.evaluation.sounds import music, song
from timar_ros.model.voice_gate import VoiceGate
from timar_ros.motion import JAW
from timar_ros.streaming.offline import generate, resolve_model
from timar_ros.training.voice_gate import _fit


def test_the_gate_scales_the_jaw_alone() -> None:
    model = tiny_model(voice_gate=True)
    config = model.config
    motion = torch.ones(2, config.turn_frames, 56)
    tokens = torch.randn(2, config.turn_tokens, config.token_width)
    with torch.no_grad():
        gated = model.shut_without_voice(motion, tokens)
        bias = model.voice_gate.out.bias
        assert bias is not None
        bias.fill_(-30.0)
        shut = model.shut_without_voice(motion, tokens)
    assert ((gated[..., JAW] > 0) & (gated[..., JAW] < 1)).all()
    assert (shut[..., JAW].abs() < 1e-6).all()
    for made in (gated, shut):
        assert (made[..., : JAW.start] == 1).all()
        assert (made[..., JAW.stop :] == 1).all()


def test_without_a_gate_motion_stays_as_it_is() -> None:
    motion = torch.rand(1, 25, 56)
    assert tiny_model().shut_without_voice(motion, torch.zeros(0)) is motion


def test_a_gate_learns_what_its_tokens_tell() -> None:
    torch.manual_seed(0)
    voiced = (torch.rand(40, 4, 5) < 0.5).repeat_interleave(5, dim=2).float()
    tokens = torch.randn(40, 4, 25, 16)
    tokens[..., 3] += 3 * voiced
    found = _fit(VoiceGate(16), tokens, voiced, seed=0)
    assert found["accuracy"] > 0.9


def test_music_and_song_leave_the_mouth_closed_and_a_voice_opens_it(repository: Path) -> None:
    model = resolve_model()
    voice, rate = soundfile.read(repository / "samples/conversation.flac", dtype="float32", frames=12 * 16000)
    assert rate == 16000
    silence = np.zeros(12 * 16000, np.float32)
    talking = generate(model, None, silence, np.ascontiguousarray(voice[:, 1]))[:, JAW.start]
    assert talking.max() > 0.05
    for sound in (music(12), song(12)):
        assert np.abs(generate(model, None, silence, sound)[:, JAW.start]).mean() < 0.03
