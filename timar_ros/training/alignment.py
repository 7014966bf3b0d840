"""A start from which attention is aligned in time, so that a small model need not spend its hours to find that out.

The learned positions start as sinusoids of the frame within the turn and of the turn, the same for all four blocks,
plus a mark of the block; and keys start equal to queries, so that a token first looks at what happens at its own time
(compare Trockman & Kolter 2023, arXiv 2305.09828). All of it stays free to change.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from timar_ros.model import Timar
from timar_ros.model import tokens as layout
from timar_ros.model.attention import Block

# Sizes of the parts of a position, before the LayerNorm that follows. Speech tokens start near unit size: positions
# must outweigh them, or what is said when is blurred (with 1 instead of 4, training stayed at a blur of half a second).
FRAME_SIZE, TURN_SIZE, BLOCK_SIZE = 4.0, 2.5, 1.0
# How much keys outweigh queries: attention scores at the start reach several units for tokens of the same time.
KEY_GAIN = 4.0


def positions(turns: int, frames: int, width: int, seed: int) -> Tensor:
    """Structured positions ``[turns·(4F + 10), width]``: half frame, a quarter turn, a quarter block."""
    frame = torch.zeros(4 * frames + layout.SEPARATORS)
    block = torch.zeros(4 * frames + layout.SEPARATORS, dtype=torch.long)
    for index in range(4):
        part = layout.block_slice(index, frames)
        frame[part], block[part] = torch.arange(frames, dtype=torch.float32), index + 1
    half, quarter = width // 2, width // 4
    in_turn = FRAME_SIZE * _sinusoids(frame, half, shortest=3.0, longest=4.0 * frames)
    # Separators belong to no frame.
    in_turn[block == 0] = 0
    marks = torch.randn((5, width - half - quarter), generator=torch.Generator().manual_seed(seed))
    of_turn = TURN_SIZE * _sinusoids(
        torch.arange(turns, dtype=torch.float32), quarter, shortest=2.5, longest=4.0 * turns
    )
    rows = [torch.cat((in_turn, t.expand(len(frame), -1), BLOCK_SIZE * marks[block]), dim=1) for t in of_turn]
    return torch.cat(rows)


def _sinusoids(at: Tensor, width: int, shortest: float, longest: float) -> Tensor:
    """``[len(at), width]`` cosines and sines of periods from ``shortest`` to ``longest``, unit mean square."""
    count = width // 2
    periods = torch.logspace(math.log10(shortest), math.log10(longest), count)
    angles = 2 * math.pi * at[:, None] / periods
    out = torch.zeros(len(at), width)
    out[:, :count], out[:, count : 2 * count] = math.sqrt(2) * angles.cos(), math.sqrt(2) * angles.sin()
    return out


@torch.no_grad()
def align(model: Timar, seed: int = 0) -> None:
    """Give ``model`` the start that this module's text describes."""
    config = model.config
    stacks: list[tuple[nn.Parameter, nn.ModuleList, int]] = [
        (model.encoder_pos_embed_learned, model.encoder_blocks, config.encoder_width)
    ]
    if not config.encoder_only:
        stacks.append((model.decoder_pos_embed_learned, model.decoder_blocks, config.decoder_width))
    for position, blocks, width in stacks:
        position.copy_(positions(config.context_turns, config.turn_frames, width, seed).unsqueeze(0))
        for block in blocks:
            assert isinstance(block, Block)
            weight = block.attn.qkv.weight
            # Every second head does not read the block's mark: it looks at its own time in all four blocks alike.
            query = weight[:width].view(block.attn.heads, -1, width)
            query[::2, :, width // 2 + width // 4 :] = 0
            weight[width : 2 * width] = KEY_GAIN * weight[:width]
