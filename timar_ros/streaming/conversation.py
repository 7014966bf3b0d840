"""One conversation in progress: its history, and the agent's motion for each next turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.model import Timar
from timar_ros.streaming.batch import ConversationBatch, Motion, Noise, TurnData


class Conversation:
    """TIMAR turn by turn (paper, section 3.5).

    Speech is normalised samples, as the model needs; :class:`timar_ros.streaming.Pipeline` takes raw audio. Shapes: N
    samples and F frames a turn.

    :param seed: noise is a function of (seed, turn number); None draws a seed, readable as ``.seed``.
    :param options: of :class:`ConversationBatch`, of which this is one conversation: ``guidance=1.5``,
        ``engine="oracle"`` and so on.
    :raises UserError: on values that are not allowed.
    """

    def __init__(self, model: Timar, seed: int | None = None, **options: Any) -> None:
        self.batch = ConversationBatch(model, 1, seed=seed, **options)

    @property
    def model(self) -> Timar:
        """The network."""
        return self.batch.model

    @property
    def seed(self) -> int:
        """The seed: noise is a function of seed and turn number."""
        return self.batch.seeds[0]

    @property
    def turn(self) -> int:
        """Number of the next turn. Set it after turns that were neither stepped nor observed."""
        return self.batch.turns[0]

    @turn.setter
    def turn(self, number: int) -> None:
        self.batch.turns[0] = number

    @property
    def conditioning(self) -> NDArray[np.float32] | None:
        """The conditioning z of the last step, ``[F, D]``."""
        return self.batch.conditioning(0)

    def step(
        self,
        user_speech: ArrayLike,
        agent_speech: ArrayLike,
        user_motion: ArrayLike | None,
        noise: Noise | None = None,
        number: int | None = None,
    ) -> Motion:
        """The agent's motion ``[F, 56]`` for a complete turn, which then becomes history.

        :param user_speech: ``[N]`` normalised samples; ``agent_speech`` likewise.
        :param user_motion: ``[F, 56]``, NaN where untracked; None: no tracker.
        :param noise: ``(initial [F, 56], steps [S, F, 56])`` to reproduce a run.
        :param number: the turn's number, which determines its noise; default: one more than the last.
        """
        motion = self.batch.step([TurnData(user_speech, agent_speech, user_motion, noise, number)])[0]
        assert motion is not None
        return motion

    def plan(self, agent_speech: ArrayLike, noise: Noise | None = None, number: int | None = None) -> Motion:
        """Motion ``[F, 56]`` for a turn that begins now (anticipatory mode), without the user's side.

        History does not change; pass the turn to :meth:`observe` when it is over.
        """
        motion = self.batch.plan([TurnData(None, agent_speech, None, noise, number)])[0]
        assert motion is not None
        return motion

    def observe(
        self,
        user_speech: ArrayLike,
        agent_speech: ArrayLike,
        user_motion: ArrayLike | None,
        motion: ArrayLike | None = None,
        number: int | None = None,
    ) -> None:
        """Add a planned turn, or a turn dropped without motion, to the history as it really happened.

        :param motion: the agent's motion ``[F, 56]``; default: the planned motion, or unknown without a plan.
        """
        self.batch.observe([TurnData(user_speech, agent_speech, user_motion, number=number, motion=motion)])

    def prepare(self) -> None:
        """Idle-time work, best right after a step; the next step does any remaining work."""
        self.batch.prepare()

    def reset(self) -> None:
        """Forget everything; the next turn is number 0."""
        self.batch.reset()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The conversation's state as plain arrays, fit for ``np.savez``."""
        return self.batch.state_dict(0)

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Resume from a :meth:`state_dict`.

        :raises UserError: when the state does not fit this model or window.
        """
        self.batch.load_state_dict(0, state)
