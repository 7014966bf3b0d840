"""Initial weights with attention aligned in time, so that a small model need not spend hours to learn the alignment.

The learned positions start as sinusoids of the frame within the window, the same for all four blocks, plus a mark of
the block. Keys start equal to queries, so that a token first attends to its own time (compare Trockman & Kolter 2023,
arXiv 2305.09828). Half of the heads look up to a second back, each by a different lag, because a listener's nod follows
earlier speech. Training may change all of these weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from timar_ros.model import Timar
from timar_ros.model import tokens as layout
from timar_ros.model.attention import Block

# Sizes of the parts of a position, before the LayerNorm that follows. Speech tokens start near unit size: positions
# must outweigh them, or attention is blurred in time (with 1 instead of 4, training stayed at a blur of half a second).
TIME_SIZE, BLOCK_SIZE = 4.0, 1.0
# Largest lag of a head in frames: listeners react within a second.
LOOK_BACK = 25.0
# An encoder-decoder adds positions twice, the second time to encoded speech: with the same sizes a frame of speech
# moves the conditioning of its own frame ten times less than without a decoder, too little to train on.
DECODER_SIZE, CONTENT_GAIN = 0.25, 4.0
# Factor of keys over queries: initial attention scores reach several units for tokens of the same time.
KEY_GAIN = 4.0


def positions(turns: int, frames: int, width: int, seed: int) -> Tensor:
    """Structured positions ``[turns·(4F + 10), width]``: three quarters time, a quarter block."""
    time = torch.zeros(turns, 4 * frames + layout.SEPARATORS)
    block = torch.zeros(4 * frames + layout.SEPARATORS, dtype=torch.long)
    for index in range(4):
        part = layout.block_slice(index, frames)
        time[:, part] = torch.arange(turns * frames, dtype=torch.float32).view(turns, frames)
        block[part] = index + 1
    timed = _time_width(width)
    in_time = TIME_SIZE * _sinusoids(time, _periods(turns * frames, timed))
    # Separators belong to no frame.
    in_time[:, block == 0] = 0
    marks = BLOCK_SIZE * torch.randn((5, width - timed), generator=torch.Generator().manual_seed(seed))
    return torch.cat((in_time, marks[block].expand(turns, -1, -1)), dim=2).flatten(0, 1)


def _time_width(width: int) -> int:
    """How many of a position's columns are sinusoids of time: cosines, then as many sines."""
    return 2 * (width * 3 // 8)


def _periods(frames: int, width: int) -> Tensor:
    """Periods [frames] of a position's ``width`` columns of time, ``[width // 2]``."""
    return torch.logspace(math.log10(3.0), math.log10(4.0 * frames), width // 2)


def _sinusoids(at: Tensor, periods: Tensor) -> Tensor:
    """``[*at, 2·periods]``: cosines, then sines, of unit mean square."""
    angles = 2 * math.pi * at.unsqueeze(-1) / periods
    return math.sqrt(2) * torch.cat((angles.cos(), angles.sin()), dim=-1)


def _rotation(lag: float, periods: Tensor) -> Tensor:
    """The rotation of a time's sinusoids to those of ``lag`` frames later, ``[2·periods, 2·periods]``."""
    angle = 2 * math.pi * lag / periods
    turned = torch.diag(angle.cos().repeat(2))
    turned.diagonal(len(periods)).copy_(-angle.sin())
    turned.diagonal(-len(periods)).copy_(angle.sin())
    return turned


@torch.no_grad()
def align(model: Timar, seed: int = 0) -> None:
    """Give ``model`` the initial weights that the module's docstring describes."""
    config = model.config
    stacks: list[tuple[nn.Parameter, nn.ModuleList, int]] = [
        (model.encoder_pos_embed_learned, model.encoder_blocks, config.encoder_width)
    ]
    if not config.encoder_only:
        stacks.append((model.decoder_pos_embed_learned, model.decoder_blocks, config.decoder_width))
    for position, blocks, width in stacks:
        position.copy_(positions(config.context_turns, config.turn_frames, width, seed).unsqueeze(0))
        timed = _time_width(width)
        periods = _periods(config.context_turns * config.turn_frames, timed)
        heads = [block.attn.heads for block in blocks if isinstance(block, Block)]
        lags = iter(_lags(sum(count // 2 for count in heads)))
        for block in blocks:
            assert isinstance(block, Block)
            weight = block.attn.qkv.weight
            query, key = (weight[i * width : (i + 1) * width].view(block.attn.heads, -1, width) for i in (0, 1))
            # Every second head ignores the block's mark: it attends to its time in all four blocks equally.
            query[::2, :, timed:] = 0
            key.copy_(KEY_GAIN * query)
            for head in range(block.attn.heads - block.attn.heads // 2, block.attn.heads):
                # The query matches a key of an earlier time, rotated to now.
                key[head, :, :timed] @= _rotation(next(lags), periods)
    if not config.encoder_only:
        nn.init.eye_(model.decoder_embed.weight)
        model.decoder_pos_embed_learned.mul_(DECODER_SIZE)
        model.z_proj.weight.mul_(CONTENT_GAIN)


def _lags(count: int) -> list[float]:
    """Lags of the ``count`` heads of all blocks that look back, in frames: evenly spaced up to a second."""
    return [LOOK_BACK * (index + 1) / count for index in range(count)]
