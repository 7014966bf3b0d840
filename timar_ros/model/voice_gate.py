"""The voice gate: whether the agent's channel holds a voice, so that music or noise moves no mouth.

The diffusion head's jaw follows loudness, and notes are as loud as syllables. The gate is a small network on the speech
encoder's tokens of one turn. It is trained alone (:mod:`timar_ros.training.voice_gate`), with all other weights frozen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CHANNELS, _KERNEL = 64, 5


class VoiceGate(nn.Module):
    """Two convolutions over the frames of a turn, the second with dilation 2: a receptive field of half a second.

    :param width: d, of the speech tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.near = nn.Conv1d(width, _CHANNELS, _KERNEL, padding=_KERNEL // 2)
        self.far = nn.Conv1d(_CHANNELS, _CHANNELS, _KERNEL, padding=_KERNEL - 1, dilation=2)
        self.out = nn.Conv1d(_CHANNELS, 1, 1)

    def logits(self, tokens: Tensor) -> Tensor:
        """Log-odds of a voice in each frame ``[n, F]`` of speech tokens ``[n, F, d]``."""
        h = torch.relu(self.near(self.norm(tokens).transpose(1, 2)))
        out: Tensor = self.out(torch.relu(self.far(h))).squeeze(1)
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """Share of the jaw's movement that passes, 0 to 1, ``[n, F, 1]`` (fp32)."""
        return torch.sigmoid(self.logits(tokens).float()).unsqueeze(-1)
