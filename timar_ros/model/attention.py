"""Transformer blocks, and Turn-Level Causal Attention (TLCA; paper, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# From this many keys on, two products and a softmax in bf16 are twice as fast on a CPU as PyTorch's fused kernel.
_MANY_KEYS = 256


def turn_causal_mask(turns: Tensor) -> Tensor:
    """Which tokens may see which: ``turns [..., T]`` holds each token's turn; True where the query may see the key.

    A token sees every token of its own and of earlier turns. Shape ``[..., T, T]`` (query, key).
    """
    return turns.unsqueeze(-1) >= turns.unsqueeze(-2)


class Attention(nn.Module):
    """Multi-head self-attention with a fused query-key-value projection."""

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.attention_dropout = attention_dropout

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[B, heads, T, width / heads]`` of ``x [B, T, width]``."""
        batch, count, width = x.shape
        fused: Tensor = self.qkv(x)
        q, k, v = fused.view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def merge(self, attended: Tensor) -> Tensor:
        """Join the heads ``[B, heads, T, width / heads]`` and project back to ``[B, T, width]``."""
        out: Tensor = self.dropout(self.proj(attended.transpose(1, 2).flatten(2)))
        return out


class FeedForward(nn.Module):
    """The block's two-layer MLP with exact GELU."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act: nn.Module = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., width]`` to the same shape."""
        out: Tensor = self.dropout(self.fc2(self.dropout(self.act(self.fc1(x)))))
        return out


class Block(nn.Module):
    """A pre-norm ViT block (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, dropout, attention_dropout)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = FeedForward(width, int(width * mlp_ratio), dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x [B, T, width]`` to the same shape; ``mask`` is boolean, True where the query may see the key."""
        q, k, v = self.project(x)
        dropout = self.attn.attention_dropout if self.training else 0.0
        return self.finish(x, F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[B, heads, T, width / heads]`` of ``x [B, T, width]``."""
        return self.attn.project(self.norm1(x))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The block's output from its input ``x [B, T, width]`` and ``attended [B, heads, T, width / heads]``."""
        x = x + self.attn.merge(attended)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without a mask or dropout, for inference; ``q [B, heads, Q, w]``, ``k`` and ``v [B, heads, T, w]``."""
    if q.dtype == torch.float32 or q.device.type != "cpu" or k.shape[2] < _MANY_KEYS:
        return F.scaled_dot_product_attention(q, k, v)
    queries, keys, values = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    nothing = queries.new_empty((1, 1, 1))  # beta = 0: never read
    scores = torch.baddbmm(nothing, queries, keys.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(q.shape)


def token_turns(count: int, turn_tokens: int, device: torch.device) -> Tensor:
    """The turn of each of ``count`` tokens, in consecutive turns of ``turn_tokens`` tokens."""
    return torch.arange(count, device=device) // turn_tokens
