"""Rolling turns: a new turn begins at every hop, and one hop's length of each turn is shown.

A turn may begin at any moment. A conversation is therefore kept on several turn grids, a hop apart, each with a history
of its own. At the end T of every hop one grid has a complete turn, [T - turn, T), which becomes that grid's history.
The frames shown next depend on whether the agent's speech is known ahead:

* **ahead** (a speech synthesizer): the turn [T, T + turn) is planned, without the user's side and with the agent's
  speech as far as it is known, then silence. The frames [T + margin, T + margin + hop) are shown at the time of their
  speech.
* **not ahead** (a microphone, a recording): the complete turn gives its last frames, [T - hop, T). They are shown, and
  the agent's voice is heard, ``hop + margin`` late.

In both cases the frames of a hop are shown from T + margin to T + margin + hop: a change of case moves no stamp. Noise
is a function of the seed and of the absolute hop, so that overlapping turns see the same noise at the same time.

A joint head samples the head's movement of a whole turn, and only a hop of it is shown. Each movement therefore goes
through the poses of its turn that were shown already, and continues the poses before the turn.
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
from timar_ros.model.joint import SHOWN, sines
from timar_ros.motion import HEAD
from timar_ros.streaming.batch import ConversationBatch, Motion, TurnData
from timar_ros.streaming.noise import movement_noise_of_hop, turn_noise
from timar_ros.streaming.sampling_options import SamplingOptions


@dataclasses.dataclass
class Hop:
    """One conversation's newest hop: n past samples, H past frames, and the agent's known speech after them.

    :ivar user_speech: normalised samples ``[n]``.
    :ivar agent_speech: normalised samples ``[n]``.
    :ivar user_motion: ``[H, 56]``, NaN where untracked; None: no tracker.
    :ivar agent_ahead: the agent's normalised speech after the hop, as long as margin and hop or longer; None: unknown.
    :ivar number: counts the hops of a conversation from 0; a skipped number is a missing hop.
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
    :param options: how motion is sampled and how much history is kept.
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
        self._plans: list[tuple[int, Motion] | None] = [None] * len(seeds)  # newest planned hop, and its plan [F, 56]
        self._joint = config.head == "joint"
        self._shown = [np.full((config.turn_frames + SHOWN, 3), np.nan, np.float32) for _ in seeds]  # newest head poses
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
        """The frames ``[H, 56]`` to show for each conversation's newest hop; None without frames.

        :raises UserError: when shapes are not the model's.
        """
        if len(hops) != len(self):
            raise UserError(f"{len(hops)} hops for {len(self)} conversations: give one each, or None")
        complete: list[TurnData | None] = [None] * len(self.batch)
        over: list[TurnData | None] = [None] * len(self.batch)
        planned: list[TurnData | None] = [None] * len(self.batch)
        rows: list[int | None] = []
        for conversation, hop in enumerate(hops):
            if hop is None:
                rows.append(None)
                continue
            self._hear(conversation, hop)
            recent = self._recent[conversation]
            row = conversation * self.grids + hop.number % self.grids
            turn = hop.number // self.grids
            rows.append(row)
            if hop.agent_ahead is None:
                first, past = hop.number + 1 - self.grids, self.batch.model.config.turn_frames - self.hop_frames
                complete[row] = TurnData(*recent.turn(), number=turn, **self._randomness(row, first, past))
            else:
                over[row] = TurnData(*recent.turn(), number=turn)
                planned[row] = TurnData(
                    None,
                    self._ahead(hop.agent_ahead),
                    None,
                    number=turn + 1,
                    **self._randomness(row, hop.number + 1, self.margin_frames),
                )
        stepped: list[Motion | None] = self.batch.step(complete) if any(complete) else complete  # type: ignore[assignment]
        if any(planned):
            self.batch.observe(over)
        plans: list[Motion | None] = self.batch.plan(planned) if any(planned) else planned  # type: ignore[assignment]
        for place in rows:
            if place is not None:
                # The window must hold the grid's next finished turn and its plan. Old turns are dropped now: the
                # positions of the rest shift, and idle time encodes the rest, not the time between a hop and its
                # motion.
                self.batch.engine.make_room(place)
        shown = slice(self.margin_frames, self.margin_frames + self.hop_frames)
        motions: list[Motion | None] = []
        for conversation, (place, hop) in enumerate(zip(rows, hops, strict=True)):
            if place is not None and hop is not None:
                planned_now = plans[place]
                self._plans[conversation] = None if planned_now is None else (hop.number, planned_now)
            tail = None if place is None else stepped[place]
            plan = None if place is None else plans[place]
            motions.append(tail[-self.hop_frames :] if tail is not None else plan[shown] if plan is not None else None)
            if hop is not None:
                self._note_shown(conversation, motions[-1])
        return motions

    def amend(self, conversation: int, frames: Motion) -> None:
        """Set the frames ``[H, 56]`` that were really shown for the newest hop: later movements continue from them."""
        self._shown[conversation][-self.hop_frames :] = frames[:, HEAD]

    def set_amplitude(self, conversation: int, amplitude: float) -> None:
        """Set the factor on the liveliness of one conversation."""
        for row in self._rows(conversation):
            self.batch.amplitudes[row] = amplitude

    def miss(self, conversation: int, hop: Hop) -> Motion | None:
        """Record a hop without a pass of the network; later turns of other grids contain the hop.

        :returns: ``[H, 56]``, an earlier hop's plan for this hop; None without such a plan.
        """
        self._hear(conversation, hop)
        plan, frames = self._plans[conversation], None
        if plan is not None and hop.number > plan[0]:
            first = self.margin_frames + (hop.number - plan[0]) * self.hop_frames
            rest = plan[1][first : first + self.hop_frames]
            frames = rest.copy() if len(rest) == self.hop_frames else None
        self._note_shown(conversation, frames)
        return frames

    def _hear(self, conversation: int, hop: Hop) -> None:
        user, agent = self._samples(hop.user_speech, "user"), self._samples(hop.agent_speech, "agent")
        for _ in range(min(self._recent[conversation].missed(hop), self.grids + SHOWN)):
            self._note_shown(conversation, None)
        self._recent[conversation].push(hop, user, agent)

    def _note_shown(self, conversation: int, frames: Motion | None) -> None:
        poses = np.full((self.hop_frames, 3), np.nan, np.float32) if frames is None else frames[:, HEAD]
        self._shown[conversation] = np.concatenate([self._shown[conversation][self.hop_frames :], poses])

    @torch.inference_mode()
    def prepare(self) -> None:
        """Idle-time work, best right after a step."""
        self.batch.engine.prepare()

    def reset(self, conversation: int | None = None) -> None:
        """Forget one conversation, or all."""
        for each in range(len(self)) if conversation is None else (conversation,):
            self._recent[each].reset()
            self._plans[each] = None
            self._shown[each][:] = np.nan
            for row in self._rows(each):
                self.batch.reset(row)

    def state_dict(self, conversation: int) -> dict[str, NDArray[Any]]:
        """A conversation's state as plain arrays, fit for ``np.savez``."""
        number, plan = self._plans[conversation] or (-1, np.zeros((0, 0), np.float32))
        state = self._recent[conversation].state_dict() | {"plan": plan, "plan_hop": np.array(number)}
        state["poses"] = self._shown[conversation].copy()
        for grid, row in enumerate(self._rows(conversation)):
            state |= {f"grid{grid}/{name}": value for name, value in self.batch.state_dict(row).items()}
        return state

    def load_state_dict(self, conversation: int, state: Mapping[str, NDArray[Any]]) -> None:
        """Resume from a :meth:`state_dict`.

        :raises UserError: when the state is of another model, window or hop.
        """
        for grid, row in enumerate(self._rows(conversation)):
            start = f"grid{grid}/"
            own = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            self.batch.load_state_dict(row, own)
        self._recent[conversation].load_state_dict(state)
        poses = np.asarray(state.get("poses", ()), np.float32)
        self._shown[conversation][:] = poses if poses.shape == self._shown[conversation].shape else np.nan
        plan = state.get("plan")
        known = plan is not None and len(plan) == self.batch.model.config.turn_frames
        self._plans[conversation] = (int(state["plan_hop"]), np.asarray(plan, np.float32)) if known else None

    def _rows(self, conversation: int) -> range:
        return range(conversation * self.grids, (conversation + 1) * self.grids)

    def _samples(self, speech: ArrayLike, who: str) -> NDArray[np.float32]:
        samples = np.asarray(speech, dtype=np.float32)
        wanted = self.hop_frames * self._frame_samples
        if samples.shape != (wanted,):
            raise UserError(f"{who} speech has shape {list(samples.shape)}, a hop needs {[wanted]}")
        return samples

    def _ahead(self, speech: ArrayLike) -> NDArray[np.float32]:
        """The agent's speech ``[N]`` of the planned turn: the known part, then silence."""
        samples = np.asarray(speech, dtype=np.float32)
        if samples.ndim != 1 or len(samples) < self.ahead_samples:
            raise UserError(
                f"agent speech ahead has shape {list(samples.shape)}, margin and hop need {[self.ahead_samples]}"
            )
        padded = np.zeros(self.batch.model.config.turn_samples, np.float32)
        padded[: len(samples)] = samples[: len(padded)]
        return padded

    def _randomness(self, row: int, first: int, past: int) -> dict[str, Any]:
        """Noise of a turn that begins with hop ``first``, and the poses that its movement continues.

        :param past: the turn's first frames that were shown already.
        """
        found: dict[str, Any] = {"noise": self._noise(row, first)}
        if not self._joint:
            return found
        config = self.batch.model.config
        white = [
            movement_noise_of_hop(self.batch.seeds[row], first + hop, self.hop_frames) for hop in range(self.grids)
        ]
        waves = sines(config.joint_coefficients, config.turn_frames, torch.device("cpu")).numpy()
        found["movement"] = waves @ np.concatenate(white)
        poses = self._shown[row // self.grids]
        known, before = poses[len(poses) - past :], poses[: len(poses) - past]
        frames = np.zeros((SHOWN, config.motion_width), np.float32)
        frames[:, HEAD] = before[-SHOWN:]
        found["shown"] = frames
        found["known"] = known if np.isfinite(known).all() else known[:0]
        return found

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
    """One conversation's speech and user motion over the length of a turn."""

    def __init__(self, samples: int, frames: int, width: int) -> None:
        self._user = np.zeros(samples, np.float32)
        self._agent = np.zeros(samples, np.float32)
        self._motion = np.full((frames, width), np.nan, np.float32)
        self._number: int | None = None

    def missed(self, hop: Hop) -> int:
        """How many hops are missing before this one."""
        return 0 if self._number is None else max(hop.number - self._number - 1, 0)

    def push(self, hop: Hop, user: NDArray[np.float32], agent: NDArray[np.float32]) -> None:
        frames = len(self._motion) * len(user) // len(self._user)
        motion = np.full((frames, self._motion.shape[1]), np.nan, np.float32)
        if hop.user_motion is not None:
            user_motion = np.asarray(hop.user_motion, dtype=np.float32)
            if user_motion.shape != motion.shape:
                raise UserError(f"user motion has shape {list(user_motion.shape)}, a hop needs {list(motion.shape)}")
            motion = user_motion
        # Missing hops count as silence without a tracked head.
        missed, self._number = self.missed(hop), hop.number
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
    """A hop's noise, cached: a hop lies in one turn of each grid."""
    return turn_noise(seed, hop, steps, frames, width, correlation, head_correlation)
