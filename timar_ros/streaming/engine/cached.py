"""The engine that keeps past turns' keys and values, so that a turn costs its own tokens and not the window's.

With Turn-Level Causal Attention a turn's keys and values do not depend on later turns, so they stay valid until the
window slides and positions shift. Then :meth:`CachedEngine.prepare` encodes the kept turns again, between turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from timar_ros.model import Timar
from timar_ros.model.attention import Block, attend
from timar_ros.model.packing import PackedBlock
from timar_ros.model.tokens import agent_motion_slice
from timar_ros.streaming.engine.full_window import HistoryTurn, Window

# Tokens that one pass over shifted histories takes at once; bounds the memory of many conversations' idle work.
_TOKENS_AT_ONCE = 16384


class CachedEngine:
    """Keys and values of B conversations' histories, at fixed places in one tensor.

    :param padded: attend over the whole cache under a mask, all conversations at once with shapes that never change
        (as GPUs and CUDA graphs need), instead of over each conversation's own length; default: on CUDA.
    """

    def __init__(self, model: Timar, window: Window, conversations: int = 1, padded: bool | None = None) -> None:
        config = model.config
        self.model = model
        self.window = window
        self.histories: list[deque[HistoryTurn]] = [deque() for _ in range(conversations)]
        self.padded = model.device.type == "cuda" if padded is None else padded
        self.size = config.turn_tokens
        self.frames = agent_motion_slice(config.turn_frames)
        self.blocks = [block for block in model.encoder_blocks if isinstance(block, Block | PackedBlock)]
        heads, width = config.encoder_heads, config.encoder_width
        shape = (len(self.blocks), 2, conversations, heads, window.turns * self.size, width // heads)
        self.cache = torch.zeros(shape, device=model.device, dtype=model.dtype)
        self._encoded = [0] * conversations  # leading turns of each history whose keys and values are in the cache

    @staticmethod
    def serves(model: Timar) -> bool:
        """Whether the model's attention lets past turns be kept: causal, and without a decoder."""
        return model.config.causal and model.config.encoder_only

    def outstanding(self, row: int) -> int:
        """How many turns of a conversation's history have to be encoded before its next turn."""
        return len(self.histories[row]) - self._encoded[row]

    def append(self, row: int, turn: HistoryTurn, encoded: bool) -> None:
        """Add a finished turn to the history. See :class:`timar_ros.streaming.engine.full_window.Engine`."""
        if self.outstanding(row) and len(self.histories[row]) < self.window.turns - 1:
            # The idle work was skipped. Do it now in the same groups of turns: the last bits depend on the grouping,
            # and a busy robot must move as the offline run does.
            self._encode([row], self._encoded[row], len(self.histories[row]))
        self.histories[row].append(turn)
        if self.window.trim(self.histories[row]):
            self._encoded[row] = 0
        elif encoded:
            self._encoded[row] += 1

    def make_room(self, row: int) -> None:
        """See :class:`timar_ros.streaming.engine.full_window.Engine`."""
        if self.window.trim(self.histories[row], spare=1):
            self._encoded[row] = 0

    def restore(self, row: int, history: Sequence[HistoryTurn]) -> None:
        """Replace a conversation's history; the next :meth:`prepare` or turn encodes it."""
        self.histories[row] = deque(history)
        self._encoded[row] = 0

    def prepare(self, rows: Sequence[int] | None = None) -> None:
        """Encode outstanding turns; with ``padded``, in one pass for conversations that need the same turns.

        :param rows: which conversations; default: all.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for row in range(len(self.histories)) if rows is None else rows:
            if self.outstanding(row):
                groups.setdefault((self._encoded[row], len(self.histories[row])), []).append(row)
        for (start, end), alike in groups.items():
            # On a CPU one conversation's products are large enough, and its bits then depend on no other conversation.
            most = max(1, _TOKENS_AT_ONCE // ((end - start) * self.size)) if self.padded else 1
            for first in range(0, len(alike), most):
                self._encode(alike[first : first + most], start, end)

    def condition(self, rows: Sequence[int], tokens: Tensor, masked: Tensor) -> Tensor:
        """Conditioning of current turns. See :class:`timar_ros.streaming.engine.full_window.Engine`."""
        self.prepare(rows)
        lengths = [len(self.histories[row]) for row in rows]
        if not self.padded:
            attention = _OwnLengthAttention(self.cache, rows, lengths, tokens.shape[1], self.size)
            return self._pass(tokens, masked, torch.tensor(lengths), attention)
        # The pass includes conversations without a turn: their keys and values go beyond their history.
        every = torch.tensor([len(history) for history in self.histories], device=tokens.device)
        index = torch.tensor(rows, device=tokens.device)
        all_tokens = tokens.new_zeros((len(self.histories), *tokens.shape[1:])).index_copy(0, index, tokens)
        all_masked = masked.new_zeros((len(self.histories), *masked.shape[1:])).index_copy(0, index, masked)
        return self.condition_all(all_tokens, all_masked, every)[index]

    def condition_all(self, tokens: Tensor, masked: Tensor, lengths: Tensor) -> Tensor:
        """Padded conditioning of every conversation, with tensor operations only, as a CUDA graph needs.

        :param tokens: ``[B, G, 4F + 10, d]``, G as in :meth:`condition`.
        :param masked: ``[B, 4F + 10]``, True at agent-motion tokens not given.
        :param lengths: turns of history ``[B]``, all of them encoded.
        """
        attention = _PaddedAttention(self.cache, lengths, tokens.shape[1], self.size)
        return self._pass(tokens, masked, lengths, attention)

    def _pass(self, tokens: Tensor, masked: Tensor, lengths: Tensor, attention: _CacheAttention) -> Tensor:
        """Current turns ``[A, G, 4F + 10, d]`` through all blocks; the last block computes only the frames' tokens."""
        model, (count, branches) = self.model, tokens.shape[:2]
        columns = lengths.to(model.device).unsqueeze(1) * self.size + torch.arange(self.size, device=model.device)
        columns = columns.repeat_interleave(branches, 0)
        x = model.embed(tokens.flatten(0, 1), masked.repeat_interleave(branches, 0))
        x = model.z_proj_ln(x + model.encoder_pos_embed_learned[0, columns])
        for layer, block in enumerate(self.blocks[:-1]):
            x = block.finish(x, attention(layer, *block.project(x)))
        block = self.blocks[-1]
        q, k, v = block.project(x)
        attended = attention(len(self.blocks) - 1, q[:, :, self.frames], k, v)
        x = model.encoder_norm(block.finish(x[:, self.frames], attended))
        z: Tensor = x + model.diffusion_pos_embed_learned[0, columns[:, self.frames]]
        return z.view(count, branches, *z.shape[1:])

    def _encode(self, rows: list[int], start: int, end: int) -> None:
        """Keys and values of turns ``start`` to ``end`` of histories whose first ``start`` turns are encoded."""
        model, size = self.model, self.size
        turns = [list(self.histories[row])[start:end] for row in rows]
        tokens = torch.stack([torch.cat([turn.tokens for turn in each]) for each in turns])
        masked = torch.stack([torch.cat([turn.masked for turn in each]) for each in turns])
        place = slice(start * size, end * size)
        x = model.z_proj_ln(model.embed(tokens, masked) + model.encoder_pos_embed_learned[:, place])
        # Adjacent rows are read in place; scattered rows must be gathered.
        chosen = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows
        for layer, block in enumerate(self.blocks):
            keys, values = self.cache[layer]
            q, keys[chosen, :, place], values[chosen, :, place] = block.project(x)
            if layer == len(self.blocks) - 1:
                break
            past_keys, past_values = keys[chosen, :, : end * size], values[chosen, :, : end * size]
            attended = []
            for turn in range(start, end):
                visible = slice(0, (turn + 1) * size)
                own = q[:, :, (turn - start) * size :][:, :, :size]
                attended.append(attend(own, past_keys[:, :, visible], past_values[:, :, visible]))
            x = block.finish(x, torch.cat(attended, dim=2))
        for row in rows:
            self._encoded[row] = end


class _CacheAttention(Protocol):
    """Put current turns' keys and values into the cache after their history, and attend over both.

    The branch without the user is written first; the real branch then overwrites it, so that the cache holds the real
    turn.
    """

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the turns' queries ``[A·G, heads, Q, w]``; keys and values are ``[A·G, heads, 4F + 10, w]``."""
        ...


class _OwnLengthAttention:
    """Attends for each conversation by itself, over its own history."""

    def __init__(self, cache: Tensor, rows: Sequence[int], lengths: Sequence[int], branches: int, size: int) -> None:
        self.cache, self.branches = cache, branches
        self.places = [(row, slice(n * size, (n + 1) * size)) for row, n in zip(rows, lengths, strict=True)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache[layer]
        out = []
        for index, (row, place) in enumerate(self.places):
            attended: list[Tensor] = []
            for each in reversed(range(index * self.branches, (index + 1) * self.branches)):
                keys[row, :, place], values[row, :, place] = k[each], v[each]
                past = keys[row : row + 1, :, : place.stop], values[row : row + 1, :, : place.stop]
                attended.insert(0, attend(q[each : each + 1], *past))
            out += attended
        return out[0] if len(out) == 1 else torch.cat(out)


class _PaddedAttention:
    """Attends for all conversations at once, over the whole masked cache, in shapes that never change."""

    def __init__(self, cache: Tensor, lengths: Tensor, branches: int, size: int) -> None:
        self.cache, self.branches = cache, branches
        offsets = torch.arange(size, device=cache.device)
        self.columns = (lengths.unsqueeze(1) * size + offsets).view(len(lengths), 1, size, 1)
        ends = (lengths + 1) * size
        self.mask = (torch.arange(cache.shape[-2], device=cache.device) < ends.unsqueeze(1)).view(
            len(lengths), 1, 1, -1
        )

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache[layer]
        place = self.columns.expand(-1, k.shape[1], -1, k.shape[3])
        attended: list[Tensor] = []
        for branch in reversed(range(self.branches)):
            keys.scatter_(2, place, k[branch :: self.branches])
            values.scatter_(2, place, v[branch :: self.branches])
            each = F.scaled_dot_product_attention(q[branch :: self.branches], keys, values, attn_mask=self.mask)
            attended.insert(0, each)
        return attended[0] if self.branches == 1 else torch.stack(attended, 1).flatten(0, 1)
