"""A turn's tokens: ``[0][1] user speech [2][3] user motion [4][5] agent speech [6][7] agent motion [8][9]``.

``[k]`` is row k of the learned separators; each block holds one token a motion frame (paper, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

SEPARATORS = 10


def block_slice(block: int, frames: int) -> slice:
    """Positions of block 0-3 (user speech, user motion, agent speech, agent motion) within a turn of F ``frames``."""
    start = 2 * (block + 1) + block * frames
    return slice(start, start + frames)


def user_slices(frames: int) -> tuple[slice, slice]:
    """Positions of the user's speech and of the user's motion."""
    return block_slice(0, frames), block_slice(1, frames)


def agent_motion_slice(frames: int) -> slice:
    """Positions of the agent's motion: what the network predicts."""
    return block_slice(3, frames)


def assemble(
    separators: Tensor, user_speech: Tensor, user_motion: Tensor, agent_speech: Tensor, agent_motion: Tensor
) -> Tensor:
    """Lay the four blocks ``[..., F, d]`` and the separators ``[10, d]`` out as turns ``[..., 4F + 10, d]``."""
    blocks = (user_speech, user_motion, agent_speech, agent_motion)
    marks = separators.expand(*user_speech.shape[:-2], *separators.shape)
    parts = [marks[..., 0:2, :]]
    for index, block in enumerate(blocks):
        parts += [block, marks[..., 2 * index + 2 : 2 * index + 4, :]]
    return torch.cat(parts, dim=-2)


def expand_agent_mask(mask: Tensor, frames: int) -> Tensor:
    """From masked agent frames ``[..., turns·F]`` to masked tokens ``[..., turns·(4F + 10)]`` (boolean)."""
    turns = mask.shape[-1] // frames
    tokens = mask.new_zeros((*mask.shape[:-1], turns, 4 * frames + SEPARATORS))
    tokens[..., agent_motion_slice(frames)] = mask.view(*mask.shape[:-1], turns, frames)
    return tokens.flatten(-2)
