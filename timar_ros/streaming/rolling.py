"""Rolling turns: every hop a turn begins anew, and a part as long as the hop is shown of each.

A turn may begin at any moment. A conversation is therefore kept on several turn grids, a hop apart, each with a history
of its own. At the end T of every hop one grid has a complete turn, [T - turn, T), which becomes that grid's history.
What is shown next depends on what is known of the agent's speech:

* **ahead** (a speech synthesizer): the turn [T, T + turn) is planned, with the user unheard in it and the agent's
  speech as far as it is known, then silence. The frames [T + margin, T + margin + hop) are shown when they are said.
* **not ahead** (a microphone, a recording): the complete turn gives its last frames, [T - hop, T). They are shown, and
  the agent's voice is heard, ``hop + margin`` late.

Either way the frames of a hop are shown from T + margin to T + margin + hop: a change of the way moves no stamp.
Noise is a function of the seed and of the absolute hop, so that overlapping turns see the same noise at the same time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from timar_ros.errors import UserError
from timar_ros.model import Timar
from timar_ros.streaming.batch import ConversationBatch, Motion, TurnData
from timar_ros.streaming.noise import turn_noise
from timar_ros.streaming.options import SamplingOptions


@dataclasses.dataclass
class Hop:
    """One conversation's newest hop: n samples and H frames that are over, and what is known of the time after them.

    :ivar user_speech: normalised samples ``[n]``.
    :ivar agent_speech: normalised samples ``[n]``.
    :ivar user_motion: ``[H, 56]``, NaN where untracked; None: no tracker.
    :ivar agent_ahead: the agent's normalised speech after the hop, as long as margin and hop or longer; None: unknown.
    :ivar number: counts the hops of a conversation from 0; a number that is left out is a hop of which nothing came.
    """

    user_speech: ArrayLike
    agent_speech: ArrayLike
    user_motion: ArrayLike | None
    agent_ahead: ArrayLike | None
    number: int


class RollingBatch:
    """Conversations in rolling mode, as rows of a :class:`ConversationBatch`: one row for each turn grid.

    :param hop_frames: H, frames of a hop; must divide a turn's frames.
    :param margin_frames: frames from the end of a hop to the first frame shown: time to compute and to travel.
    :param seed: one for all conversations, or one each.
    :param options: how motion is sampled and how much is remembered.
    :raises UserError: when the hop does not divide the turn, or with open history (``mask_history_agent`` False).
    """

    def __init__(
        self,
        model: Timar,
        conversations: int,
        *,
        hop_frames: int,
        margin_frames: int,
        seed: int | Sequence[int],
        options: SamplingOptions | None = None,
        **changes: Any,
    ) -> None:
        config = model.config
        if not 1 <= hop_frames <= config.turn_frames or config.turn_frames % hop_frames:
            raise UserError(
                f"hop = {hop_frames / config.motion_rate:g} s: "
                f"must divide the model's turn of {config.turn_seconds:g} s"
            )
        if not 0 <= margin_frames <= config.turn_frames - hop_frames:
            raise UserError(
                f"margin = {margin_frames / config.motion_rate:g} s: must be at most a turn less a hop, "
                f"{(config.turn_frames - hop_frames) / config.motion_rate:g} s"
            )
        options = dataclasses.replace(options or SamplingOptions(), **changes)
        if not options.mask_history_agent:
            raise UserError(
                "mask_history_agent = False: rolling turns overlap, so the agent's past motion stays hidden"
            )
        self.hop_frames, self.margin_frames = hop_frames, margin_frames
        self.grids = config.turn_frames // hop_frames
        self._frame_samples = config.turn_samples // config.turn_frames
        seeds = [seed] * conversations if isinstance(seed, int) else list(seed)
        rows = [each for each in seeds for _ in range(self.grids)]
        self.batch = ConversationBatch(model, conversations * self.grids, options, seed=rows)
        self._recent = [_Recent(config.turn_samples, config.turn_frames, config.motion_width) for _ in seeds]
        correlation = options.noise_correlation
        self._correlation = config.motion_rate * (config.noise_correlation if correlation is None else correlation)
        self._head_correlation = config.motion_rate * (config.head_noise_correlation if correlation is None else 0.0)

    def __len__(self) -> int:
        return len(self._recent)

    @property
    def options(self) -> SamplingOptions:
        """How motion is sampled; may be replaced between steps."""
        return self.batch.options

    @options.setter
    def options(self, options: SamplingOptions) -> None:
        self.batch.options = options

    @property
    def ahead_samples(self) -> int:
        """How many samples of the agent's speech after a hop must be known for it to count as ahead."""
        return (self.margin_frames + self.hop_frames) * self._frame_samples

    def step(self, hops: Sequence[Hop | None]) -> list[Motion | None]:
        """The frames ``[H, 56]`` to be shown for each conversation's newest hop; None where there is none.

        :raises UserError: when shapes are not the model's.
        """
        if len(hops) != len(self):
            raise UserError(f"{len(hops)} hops for {len(self)} conversations: give one each, None where there is none")
        complete: list[TurnData | None] = [None] * len(self.batch)
        over: list[TurnData | None] = [None] * len(self.batch)
        planned: list[TurnData | None] = [None] * len(self.batch)
        rows: list[int | None] = []
        for conversation, hop in enumerate(hops):
            if hop is None:
                rows.append(None)
                continue
            self.miss(conversation, hop)
            recent = self._recent[conversation]
            row = conversation * self.grids + hop.number % self.grids
            turn = hop.number // self.grids
            rows.append(row)
            if hop.agent_ahead is None:
                noise = self._noise(row, hop.number + 1 - self.grids)
                complete[row] = TurnData(*recent.turn(), noise=noise, number=turn)
            else:
                over[row] = TurnData(*recent.turn(), number=turn)
                noise = self._noise(row, hop.number + 1)
                planned[row] = TurnData(None, self._ahead(hop.agent_ahead), None, noise=noise, number=turn + 1)
        stepped: list[Motion | None] = self.batch.step(complete) if any(complete) else complete  # type: ignore[assignment]
        if any(planned):
            self.batch.observe(over)
        plans: list[Motion | None] = self.batch.plan(planned) if any(planned) else planned  # type: ignore[assignment]
        shown = slice(self.margin_frames, self.margin_frames + self.hop_frames)
        made: list[Motion | None] = []
        for place in rows:
            tail = None if place is None else stepped[place]
            plan = None if place is None else plans[place]
            made.append(tail[-self.hop_frames :] if tail is not None else plan[shown] if plan is not None else None)
        return made

    def miss(self, conversation: int, hop: Hop) -> None:
        """Hear and see a hop without answering it; later hops of other grids hold it."""
        user, agent = self._samples(hop.user_speech, "user"), self._samples(hop.agent_speech, "agent")
        self._recent[conversation].push(hop, user, agent)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Idle-time work, best right after a step."""
        self.batch.engine.prepare()

    def reset(self, conversation: int | None = None) -> None:
        """Forget one conversation, or all."""
        for each in range(len(self)) if conversation is None else (conversation,):
            self._recent[each].reset()
            for row in self._rows(each):
                self.batch.reset(row)

    def state_dict(self, conversation: int) -> dict[str, NDArray[Any]]:
        """A conversation's memory as plain arrays, fit for ``np.savez``."""
        state = self._recent[conversation].state_dict()
        for grid, row in enumerate(self._rows(conversation)):
            state |= {f"grid{grid}/{name}": value for name, value in self.batch.state_dict(row).items()}
        return state

    def load_state_dict(self, conversation: int, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where :meth:`state_dict` was taken.

        :raises UserError: when the state is of another model, window or hop.
        """
        for grid, row in enumerate(self._rows(conversation)):
            start = f"grid{grid}/"
            own = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            self.batch.load_state_dict(row, own)
        self._recent[conversation].load_state_dict(state)

    def _rows(self, conversation: int) -> range:
        return range(conversation * self.grids, (conversation + 1) * self.grids)

    def _samples(self, speech: ArrayLike, who: str) -> NDArray[np.float32]:
        samples = np.asarray(speech, dtype=np.float32)
        wanted = self.hop_frames * self._frame_samples
        if samples.shape != (wanted,):
            raise UserError(f"{who} speech has shape {list(samples.shape)}, a hop needs {[wanted]}")
        return samples

    def _ahead(self, speech: ArrayLike) -> NDArray[np.float32]:
        """The agent's speech ``[N]`` of the planned turn: what is known of it, then silence."""
        samples = np.asarray(speech, dtype=np.float32)
        if samples.ndim != 1 or len(samples) < self.ahead_samples:
            raise UserError(
                f"agent speech ahead has shape {list(samples.shape)}, margin and hop need {[self.ahead_samples]}"
            )
        made = np.zeros(self.batch.model.config.turn_samples, np.float32)
        made[: len(samples)] = samples[: len(made)]
        return made

    def _noise(self, row: int, first: int) -> tuple[Motion, Motion]:
        """Noise of a turn that begins with this hop: ``(initial [F, 56], steps [S, F, 56])``."""
        parts = [self._hop_noise(self.batch.seeds[row], first + hop) for hop in range(self.grids)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts], axis=1)

    def _hop_noise(self, seed: int, hop: int) -> tuple[Motion, Motion]:
        return _hop_noise(
            seed,
            hop,
            self.batch.steps,
            self.hop_frames,
            self.batch.model.config.motion_width,
            self._correlation,
            self._head_correlation,
        )


class _Recent:
    """What was heard and seen of one conversation in the last turn's length."""

    def __init__(self, samples: int, frames: int, width: int) -> None:
        self._user = np.zeros(samples, np.float32)
        self._agent = np.zeros(samples, np.float32)
        self._motion = np.full((frames, width), np.nan, np.float32)
        self._number: int | None = None

    def push(self, hop: Hop, user: NDArray[np.float32], agent: NDArray[np.float32]) -> None:
        frames = len(self._motion) * len(user) // len(self._user)
        motion = np.full((frames, self._motion.shape[1]), np.nan, np.float32)
        if hop.user_motion is not None:
            seen = np.asarray(hop.user_motion, dtype=np.float32)
            if seen.shape != motion.shape:
                raise UserError(f"user motion has shape {list(seen.shape)}, a hop needs {list(motion.shape)}")
            motion = seen
        # Hops that never came are silence, in which nobody was seen.
        missed = 0 if self._number is None else max(hop.number - self._number - 1, 0)
        self._number = hop.number
        for _ in range(min(missed, len(self._motion) // frames)):
            self._shift(np.zeros_like(user), np.zeros_like(agent), np.full_like(motion, np.nan))
        self._shift(user, agent, motion)

    def turn(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
        """User's speech ``[N]``, agent's speech ``[N]`` and the user's motion ``[F, 56]`` of the newest turn."""
        return self._user, self._agent, self._motion if np.isfinite(self._motion).any() else None

    def reset(self) -> None:
        self._user[:], self._agent[:], self._motion[:], self._number = 0.0, 0.0, np.nan, None

    def state_dict(self) -> dict[str, NDArray[Any]]:
        number = np.array(-1 if self._number is None else self._number)
        return {
            "user": self._user.copy(),
            "agent": self._agent.copy(),
            "motion": self._motion.copy(),
            "hop": number,
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        try:
            user, agent, motion = state["user"], state["agent"], state["motion"]
            number = int(state["hop"])
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"saved conversation is not of rolling mode ({error}): start a new one") from error
        if (user.shape, agent.shape, motion.shape) != (self._user.shape, self._agent.shape, self._motion.shape):
            raise UserError("saved conversation is of another turn length: start a new one")
        self._user[:], self._agent[:], self._motion[:] = user, agent, motion
        self._number = None if number < 0 else number

    def _shift(self, user: NDArray[np.float32], agent: NDArray[np.float32], motion: NDArray[np.float32]) -> None:
        self._user = np.concatenate([self._user[len(user) :], user])
        self._agent = np.concatenate([self._agent[len(agent) :], agent])
        self._motion = np.concatenate([self._motion[len(motion) :], motion])


@functools.lru_cache(maxsize=256)
def _hop_noise(
    seed: int, hop: int, steps: int, frames: int, width: int, correlation: float, head_correlation: float
) -> tuple[Motion, Motion]:
    """A hop's noise; a hop lies in as many turns as there are grids, so it is kept."""
    return turn_noise(seed, hop, steps, frames, width, correlation, head_correlation)
