"""Seeded models small enough for tests, and turns to feed them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timar_ros.model import Timar, TimarConfig, create_timar
from timar_ros.streaming.batch import TurnData

SPEECH: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8],
    "conv_stride": [80, 4],
    "conv_kernel": [160, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "vocab_size": 32,
    "layerdrop": 0.0,
}
"""Arguments of a Wav2Vec2Config with a few thousand weights."""

CONFIG = TimarConfig(
    speech_width=16,
    token_width=24,
    encoder_width=32,
    encoder_depth=2,
    encoder_heads=4,
    decoder_width=32,
    decoder_depth=1,
    decoder_heads=4,
    head_depth=2,
    head_width=32,
)


def tiny_model(seed: int = 0, **changes: Any) -> Timar:
    """A model whose every weight is random, so that any mistake shows in its output."""
    return create_timar(dataclasses.replace(CONFIG, **changes), SPEECH, seed, zero_head=False)


def random_turn(seed: int, tracked: str = "all", config: TimarConfig = CONFIG) -> TurnData:
    """A turn of noise; tracked: ``all``, ``none`` (no tracker), ``some`` (frames lost) or ``partly`` (columns lost)."""
    rng = np.random.default_rng(seed)
    user, agent = rng.standard_normal((2, config.turn_samples), dtype=np.float32)
    motion = rng.standard_normal((config.turn_frames, config.motion_width), dtype=np.float32)
    if tracked == "some":
        motion[rng.random(len(motion)) < 0.4] = np.nan
    if tracked == "partly":
        motion[3:9, :50] = np.nan
    return TurnData(user, agent, None if tracked == "none" else motion)


def training_batch(
    user_speech: Tensor, agent_speech: Tensor, user_motion: Tensor, agent_motion: Tensor, **given: Tensor
) -> dict[str, Tensor]:
    """A batch as the trainer's data give it: one noise draw, all frames to predict, nothing dropped, but for ``given``.

    :param user_speech: ``[B, N]``, as ``agent_speech``; the motions ``[B, T, 56]``.
    """
    clips, frames, width = agent_motion.shape
    generator = torch.Generator().manual_seed(2)
    return {
        "user_speech": user_speech,
        "agent_speech": agent_speech,
        "user_motion": user_motion,
        "agent_motion": agent_motion,
        "agent_mask": torch.ones(clips, frames, dtype=torch.bool),
        "user_speech_drop": torch.zeros(clips, frames, dtype=torch.bool),
        "user_motion_drop": torch.zeros(clips, frames, dtype=torch.bool),
        "timesteps": torch.randint(1000, (1, clips, frames), generator=generator),
        "noise": torch.randn(1, clips, frames, width, generator=generator),
    } | given
