"""DualTalk, the baseline for TIMAR (Peng et al. 2025, arXiv 2505.18096).

It takes a whole clip at once, the future included, and returns the agent's motion in one deterministic pass. The
parameters have the public checkpoint's names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from timar_ros.errors import UserError
from timar_ros.model.diffusion import motion_mse
from timar_ros.model.speech_encoder import build_speech_encoder, encode
from timar_ros.motion import MOTION_SIZE, SAMPLES_PER_FRAME

HEADS = 4


@dataclasses.dataclass(frozen=True)
class DualTalkConfig:
    """Sizes of the baseline; the defaults are the paper's."""

    feature_dim: int = 256
    motion_width: int = MOTION_SIZE
    interaction_layers: int = 3
    feedforward: int = 2048
    interaction_dropout: float = 0.5
    """Dropout on the output of the self-attention that follows the interaction encoder."""
    standardise: bool = False
    """Standardise motion internally, with statistics stored with the weights (``motion_mean``, ``motion_scale``)."""

    def __post_init__(self) -> None:
        if self.feature_dim < HEADS or self.feature_dim % HEADS:
            raise UserError(f"DualTalk configuration: feature_dim = {self.feature_dim} must be a multiple of {HEADS}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DualTalkConfig:
        """From plain values.

        :raises UserError: on an unknown name.
        """
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise UserError(f"DualTalk configuration: unknown entries {', '.join(unknown)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for config.json."""
        return dataclasses.asdict(self)


class JointEncoder(nn.Module):
    """Both speakers' audio and the user's motion to features of one width."""

    def __init__(self, config: DualTalkConfig, speech: Mapping[str, Any]) -> None:
        super().__init__()
        width = config.feature_dim
        self.audio_encoder1 = build_speech_encoder(speech)
        self.audio_encoder2 = build_speech_encoder(speech)
        self.audio_projection = nn.Linear(self.audio_encoder1.config.hidden_size, width)  # type: ignore[union-attr,arg-type]
        self.blendshape_encoder = nn.Sequential(
            nn.Linear(config.motion_width, width // 2), nn.ReLU(), nn.Linear(width // 2, width), nn.ReLU()
        )

    def forward(self, agent_speech: Tensor, user_speech: Tensor, user_motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features ``[B, T, f]`` of the agent's audio, the user's audio and the user's motion."""
        frames = -(-agent_speech.shape[-1] // SAMPLES_PER_FRAME)
        agent = self.audio_projection(encode(self.audio_encoder1, agent_speech, frames))
        user = self.audio_projection(encode(self.audio_encoder2, user_speech, frames))
        return agent, user, self.blendshape_encoder(user_motion)


class TemporalEnhancer(nn.Module):
    """Cross-attention from the user's audio to the user's motion, then a bidirectional LSTM."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross_attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.temporal_lstm = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, audio: Tensor, motion: Tensor) -> Tensor:
        """``[B, T, f]`` twice to ``[B, T, f]``."""
        attended, _ = self.cross_attention(audio, motion, motion, need_weights=False)
        out: Tensor = self.temporal_lstm(attended)[0]
        return out


class InteractionModule(nn.Module):
    """A transformer encoder, then a self-attention whose output replaces its input."""

    def __init__(self, config: DualTalkConfig) -> None:
        super().__init__()
        width = 2 * config.feature_dim
        layer = nn.TransformerEncoderLayer(width, HEADS, config.feedforward, batch_first=True)
        self.interaction_encoder = nn.TransformerEncoder(layer, config.interaction_layers)
        self.self_attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.dropout = nn.Dropout(config.interaction_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, 2f]`` to the same shape."""
        x = self.interaction_encoder(x)
        out: Tensor = self.dropout(self.self_attention(x, x, x, need_weights=False)[0])
        return out


class SynthesisModule(nn.Module):
    """A transformer decoder on its own input, a small modulation, and the projection to FLAME."""

    def __init__(self, config: DualTalkConfig) -> None:
        super().__init__()
        width = 2 * config.feature_dim
        layer = nn.TransformerDecoderLayer(width, HEADS, config.feedforward, batch_first=True)
        self.synthesis_decoder = nn.TransformerDecoder(layer, 1)
        self.modulation_layer = nn.Linear(width, width)
        self.blendshape_predictor = nn.Linear(width, config.motion_width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, 2f]`` to motion ``[B, T, 56]``."""
        x = self.synthesis_decoder(x, x)
        out: Tensor = self.blendshape_predictor(x + 0.1 * self.modulation_layer(x))
        return out


class DualTalk(nn.Module):
    """The baseline. All motion in TIMAR's order and units; speech normalised over the whole clip.

    :param speech: configuration of both speech encoders; see
        :func:`timar_ros.model.speech_encoder.build_speech_encoder`.
    """

    motion_mean: Tensor
    motion_scale: Tensor

    def __init__(self, config: DualTalkConfig, speech: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.speech_config = dict(speech)
        self.joint_encoder = JointEncoder(config, speech)
        self.temporal_enhancer = TemporalEnhancer(config.feature_dim)
        self.interaction_module = InteractionModule(config)
        self.synthesis_module = SynthesisModule(config)
        self.register_buffer("motion_mean", torch.zeros(config.motion_width), persistent=config.standardise)
        self.register_buffer("motion_scale", torch.ones(config.motion_width), persistent=config.standardise)

    def _predict(self, agent_speech: Tensor, user_speech: Tensor, user_motion: Tensor) -> Tensor:
        """The agent's motion in the network's own (standardised) units."""
        motion = torch.nan_to_num((user_motion - self.motion_mean) / self.motion_scale)
        agent, user, motion_features = self.joint_encoder(agent_speech, user_speech, motion)
        frames = min(agent.shape[1], motion_features.shape[1])
        user_context = self.temporal_enhancer(user[:, :frames], motion_features[:, :frames])
        predicted: Tensor = self.synthesis_module(
            self.interaction_module(torch.cat((agent[:, :frames], user_context), dim=-1))
        )
        return predicted

    def forward(self, agent_speech: Tensor, user_speech: Tensor, user_motion: Tensor) -> Tensor:
        """The agent's motion ``[B, T, 56]``.

        :param agent_speech: ``[B, N]``, zero mean and unit variance over the clip.
        :param user_speech: ``[B, N]``, likewise.
        :param user_motion: ``[B, T, 56]``; untracked columns (NaN) count as the mean.
        """
        return self._predict(agent_speech, user_speech, user_motion) * self.motion_scale + self.motion_mean

    def training_loss(
        self, agent_speech: Tensor, user_speech: Tensor, user_motion: Tensor, agent_motion: Tensor
    ) -> Tensor:
        """The three MSEs and the velocity's MSE, per frame ``[B, T]`` (the velocity's mean is added to every frame)."""
        target = (agent_motion - self.motion_mean) / self.motion_scale
        predicted = self._predict(agent_speech, user_speech, user_motion).float()
        velocity = (predicted.diff(dim=1) - target.diff(dim=1)).square().mean()
        return motion_mse(predicted, target) + velocity
