"""One conversation in progress: what was heard and seen so far, and the agent's motion for each next turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.model import Timar
from timar_ros.streaming.batch import ConversationBatch, Motion, Noise, TurnData


class Conversation:
    """TIMAR turn by turn (paper, section 3.5).

    Speech is taken as the model takes it: normalised samples. Shapes: N samples and F frames a turn.

    :param context_seconds: the window, current turn included; default: the model's longest.
    :param mask_history_agent: whether the agent's own past motion is hidden from the network (the paper's evaluation).
    :param guidance: classifier-free guidance strength; 1 is none.
    :param guidance_schedule: ``constant``, or ``linear`` over the rounds of iterated decoding.
    :param temperature: multiplies the noise that sampling adds.
    :param sampling_steps: diffusion steps, 2 or more; default: the model's.
    :param iterations: rounds of masked decoding in a turn; the frames of a round see those of earlier rounds.
    :param order: in which order rounds take frames, ``left_to_right`` or ``random``.
    :param seed: noise is a function of (seed, turn number); None draws a seed, readable as ``.seed``.
    :param context_policy: ``sliding`` (always the newest turns, the paper) or ``stepped`` (history grows to the window,
        then falls back to ``kept_turns``: a fourth of the idle work).
    :param noise_correlation: seconds over which sampling noise is correlated from frame to frame and turn to turn;
        0: white (the paper); default: what the model recommends.
    :param head_crossover: frequency [Hz] below which the head moves as it was drawn, and above which as it is to be
        expected; 0: as drawn throughout (the paper); default: what the model recommends.
    :param liveliness: how much the head moves against an average person's, within 0.3 and 2 (models with a joint head).
    :param engine: ``cached``, or ``oracle``: the same by recomputing the whole window every turn. Models whose
        attention is not causal, or that have a decoder, always get the oracle, and the log says so.
    :raises UserError: on values that cannot be.
    """

    def __init__(
        self,
        model: Timar,
        context_seconds: float | None = None,
        mask_history_agent: bool = True,
        guidance: float = 1.0,
        guidance_schedule: str = "constant",
        temperature: float = 1.0,
        sampling_steps: int | None = None,
        iterations: int = 1,
        order: str = "left_to_right",
        seed: int | None = None,
        context_policy: str = "sliding",
        kept_turns: int = 3,
        noise_correlation: float | None = None,
        head_crossover: float | None = None,
        liveliness: float = 1.0,
        engine: str = "cached",
    ) -> None:
        self.batch = ConversationBatch(
            model,
            1,
            seed=seed,
            engine=engine,
            context_seconds=context_seconds,
            mask_history_agent=mask_history_agent,
            guidance=guidance,
            guidance_schedule=guidance_schedule,
            temperature=temperature,
            sampling_steps=sampling_steps,
            iterations=iterations,
            order=order,
            context_policy=context_policy,
            kept_turns=kept_turns,
            noise_correlation=noise_correlation,
            head_crossover=head_crossover,
            liveliness=liveliness,
        )

    @property
    def model(self) -> Timar:
        """The network."""
        return self.batch.model

    @property
    def seed(self) -> int:
        """What the noise comes from, with the turn's number."""
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
        :param number: the turn's number, from which its noise comes; default: one more than the last.
        """
        motion = self.batch.step([TurnData(user_speech, agent_speech, user_motion, noise, number)])[0]
        assert motion is not None
        return motion

    def plan(self, agent_speech: ArrayLike, noise: Noise | None = None, number: int | None = None) -> Motion:
        """Motion ``[F, 56]`` for a turn that begins now (anticipatory mode), its user unheard.

        History is not changed; give the turn to :meth:`observe` when it is over.
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
        """What really happened in a planned turn, or in one dropped without motion: it becomes history.

        :param motion: what the agent did, ``[F, 56]``; default: what was planned, or if nothing was, unknown.
        """
        self.batch.observe([TurnData(user_speech, agent_speech, user_motion, number=number, motion=motion)])

    def prepare(self) -> None:
        """Idle-time work, best right after a step. What is left out, the next step does itself."""
        self.batch.prepare()

    def reset(self) -> None:
        """Forget everything; the next turn is number 0."""
        self.batch.reset()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The conversation's memory as plain arrays, fit for ``np.savez``."""
        return self.batch.state_dict(0)

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where :meth:`state_dict` was taken.

        :raises UserError: when it does not fit this model or window.
        """
        self.batch.load_state_dict(0, state)
