"""From a conversation's history and its current turn to the conditioning of the turn's frames.

:class:`FullWindow` computes the whole window at every turn. It is the reference implementation for the cached engine,
and the only engine for ablations without causal attention or with a decoder.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from timar_ros.model import Timar
from timar_ros.model.tokens import agent_motion_slice

KEPT_TURNS = 3
"""Turns of history that the stepped policy keeps when the window is full."""


@dataclasses.dataclass(frozen=True)
class HistoryTurn:
    """A past turn: its tokens ``[4F + 10, d]`` and which of them are masked ``[4F + 10]``."""

    tokens: Tensor
    masked: Tensor


@dataclasses.dataclass(frozen=True)
class Window:
    """How much history is kept: at most ``turns - 1`` past turns and the current one.

    ``sliding`` keeps the newest ``turns - 1`` (the paper). ``stepped`` lets history grow to ``turns - 1`` and then
    keeps the newest ``KEPT_TURNS``, so that positions shift once in several turns instead of at every turn.
    """

    turns: int
    policy: str = "sliding"

    def trim(self, history: deque[HistoryTurn], spare: int = 0) -> int:
        """Drop turns that no longer fit; returns how many turns were dropped.

        :param spare: how many further turns must fit before the next one is computed.
        """
        limit = max(self.turns - 1 - spare, 0)
        if len(history) <= limit:
            return 0
        dropped = len(history) - (limit if self.policy == "sliding" else min(KEPT_TURNS, limit))
        for _ in range(dropped):
            history.popleft()
        return dropped


class Engine(Protocol):
    """Histories of B conversations, and the conditioning of their current turns."""

    histories: list[deque[HistoryTurn]]
    window: Window
    model: Timar

    def condition(self, rows: Sequence[int], tokens: Tensor, masked: Tensor) -> Tensor:
        """Conditioning ``[A, G, F, D]`` of the agent's frames in the current turns of A conversations.

        :param rows: which conversations.
        :param tokens: ``[A, G, 4F + 10, d]``: G = 1, or 2 where the second is the branch without the user.
        :param masked: ``[A, 4F + 10]``, True at agent-motion tokens not given.
        """

    def append(self, row: int, turn: HistoryTurn, encoded: bool) -> None:
        """Add a finished turn to the history.

        :param encoded: whether the conversation's last :meth:`condition` had exactly these tokens and this mask.
        """

    def make_room(self, row: int) -> None:
        """Drop turns of a conversation's history now, so that the next turn fits without dropping any."""

    def restore(self, row: int, history: Sequence[HistoryTurn]) -> None:
        """Replace a conversation's history (empty: forget everything)."""

    def prepare(self) -> None:
        """Do idle-time work, so that the next turn need not wait for it."""


class FullWindow:
    """The whole window through every block at every turn."""

    def __init__(self, model: Timar, window: Window, conversations: int = 1) -> None:
        self.model = model
        self.window = window
        self.histories: list[deque[HistoryTurn]] = [deque() for _ in range(conversations)]

    def condition(self, rows: Sequence[int], tokens: Tensor, masked: Tensor) -> Tensor:
        """See :class:`Engine`."""
        frames = agent_motion_slice(self.model.config.turn_frames)
        outs = []
        for row, branches, mask in zip(rows, tokens, masked, strict=True):
            past = self.histories[row]
            count = len(branches)
            window = torch.cat([*(turn.tokens.expand(count, -1, -1) for turn in past), branches], dim=1)
            hidden = torch.cat([*(turn.masked for turn in past), mask]).expand(count, -1)
            outs.append(self.model.condition(window, hidden)[:, -self.model.config.turn_tokens :][:, frames])
        return torch.stack(outs)

    def append(self, row: int, turn: HistoryTurn, encoded: bool) -> None:  # noqa: ARG002 (nothing is kept encoded)
        """See :class:`Engine`."""
        self.histories[row].append(turn)
        self.window.trim(self.histories[row])

    def make_room(self, row: int) -> None:
        """See :class:`Engine`."""
        self.window.trim(self.histories[row], spare=1)

    def restore(self, row: int, history: Sequence[HistoryTurn]) -> None:
        """See :class:`Engine`."""
        self.histories[row] = deque(history)

    def prepare(self) -> None:
        """There is no idle-time work."""
