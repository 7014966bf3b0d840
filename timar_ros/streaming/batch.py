"""Many conversations on one device, a turn of each in one pass."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import secrets
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from timar_ros.errors import UserError
from timar_ros.model import Timar
from timar_ros.model.diffusion import Drawn
from timar_ros.model.joint import SHOWN
from timar_ros.model.packing import packed
from timar_ros.model.tokens import agent_motion_slice
from timar_ros.motion import HEAD
from timar_ros.streaming.crossover import HeadCrossover
from timar_ros.streaming.engine.cached import CachedEngine
from timar_ros.streaming.engine.full_window import Engine, FullWindow, HistoryTurn, Window
from timar_ros.streaming.engine.static import StaticTurn
from timar_ros.streaming.noise import movement_noise, turn_noise
from timar_ros.streaming.sampling_options import LARGEST_SEED, LIVELINESS, SamplingOptions

log = logging.getLogger(__name__)

NO_CACHE = "its attention is not causal or it has a decoder, so every turn computes the whole window (engine: oracle)"

_warned: weakref.WeakSet[Timar] = weakref.WeakSet()  # models for which NO_CACHE was logged

_MOST_PLANS = 4  # planned turns kept until they end: a turn may be planned before the previous turn is over

Noise = tuple[ArrayLike, ArrayLike]
Motion = NDArray[np.float32]


@dataclasses.dataclass
class TurnData:
    """One conversation's turn: normalised speech ``[N]`` each, the user's motion ``[F, 56]`` (NaN: untracked) or None.

    :ivar user_speech: None in a planned turn, whose user is not heard yet.
    :ivar noise: ``(initial [F, 56], steps [S, F, 56])`` to reproduce a run; None: from (seed, turn number).
    :ivar number: the turn's number; None: one more than the conversation's last.
    :ivar motion: the agent's motion ``[F, 56]`` in an observed turn; None: the planned motion, if any.
    :ivar shown: the last frames ``[n, 56]`` shown before this turn, oldest first, 12 or more; None: the end of the turn
        sampled last. A joint head continues from these frames.
    :ivar known: the first head poses ``[n, 3]`` of the turn itself, where they have been shown already, n at most F: a
        joint head's movement goes through them.
    :ivar movement: a joint head's noise ``[K, 3]``; None: from (seed, turn number).
    :ivar liveliness: how much the head moves, relative to an average person (joint head); None: the options' value.
    """

    user_speech: ArrayLike | None
    agent_speech: ArrayLike
    user_motion: ArrayLike | None = None
    noise: Noise | None = None
    number: int | None = None
    motion: ArrayLike | None = None
    shown: ArrayLike | None = None
    known: ArrayLike | None = None
    movement: ArrayLike | None = None
    liveliness: float | None = None


class ConversationBatch:
    """B conversations that share a device; each has its own history, length and turn number.

    A conversation's result does not depend on the other conversations of the batch (up to rounding).

    :param options: how motion is sampled and how much history is kept; ``changes`` replace single options.
    :param seed: one for all conversations, or one each; None draws one at random.
    :param iterations: rounds of masked decoding in a turn; the frames of a round see those of earlier rounds.
    :param guidance_schedule: ``constant``, or ``linear`` over the rounds of masked decoding.
    :raises UserError: on values that are not allowed, or that the model cannot serve.
    """

    def __init__(
        self,
        model: Timar,
        conversations: int,
        options: SamplingOptions | None = None,
        *,
        seed: int | Sequence[int] | None = None,
        iterations: int = 1,
        guidance_schedule: str = "constant",
        **changes: Any,
    ) -> None:
        model.eval()
        self.options = dataclasses.replace(options or SamplingOptions(), **changes)
        config = model.config
        if guidance_schedule not in ("constant", "linear"):
            raise UserError(f"guidance_schedule = '{guidance_schedule}': use constant or linear")
        if not 1 <= iterations <= config.turn_frames:
            raise UserError(f"iterations = {iterations}: must be within 1 and {config.turn_frames}")
        self.iterations, self.guidance_schedule = iterations, guidance_schedule
        window = Window(self.options.context_turns(config), self.options.window_policy)
        self.engine = make_engine(self.options.engine, model, window, conversations)
        self.model = self.engine.model
        if seed is None:
            seed = secrets.randbits(62)
        self.seeds = [seed] * conversations if isinstance(seed, int) else list(seed)
        if len(self.seeds) != conversations:
            raise UserError(f"{len(self.seeds)} seeds for {conversations} conversations: give one, or one each")
        for each in self.seeds:
            if not 0 <= each <= LARGEST_SEED:
                raise UserError(f"seed = {each}: must be within 0 and 2^63 - 1")
        self.turns = [0] * conversations
        self.steps = self.options.sampling_steps or config.sampling_steps
        correlation = self.options.noise_correlation
        self._correlation = config.motion_rate * (config.noise_correlation if correlation is None else correlation)
        # A correlation in the options applies to every column.
        self._head_correlation = config.motion_rate * (config.head_noise_correlation if correlation is None else 0.0)
        hertz = config.head_crossover if self.options.head_crossover is None else self.options.head_crossover
        self._heads = [HeadCrossover(hertz, config.head_emphasis, config.motion_rate) for _ in range(conversations)]
        self._joint = config.head == "joint"
        self._known_gain = functools.cache(self.model.known_gain)  # the weights do not change any more
        self.amplitudes = [1.0] * conversations  # factors on the liveliness, by conversation
        self._shown = [_nowhere() for _ in range(conversations)]  # last sampled head poses [SHOWN, 3]
        self._planned: list[dict[int, Tensor]] = [{} for _ in range(conversations)]  # motion by turn
        self._conditioning: list[Tensor | None] = [None] * conversations
        self._static: dict[tuple[int, bool], StaticTurn] = {}  # by branches, and whether poses are known
        hidden = torch.zeros((2, config.turn_tokens), dtype=torch.bool, device=model.device)
        hidden[1, agent_motion_slice(config.turn_frames)] = True
        self._masks = hidden  # masks of a turn with known and of a turn with unknown agent motion
        self._drawn: dict[int, tuple[tuple[int, int], tuple[Motion, Motion]]] = {}
        self._agent = agent_motion_slice(config.turn_frames)
        self._motion_shape = (config.turn_frames, config.motion_width)

    def __len__(self) -> int:
        return len(self.turns)

    @property
    def _guidance(self) -> float:
        return self.options.guidance_for(self.model.config)

    def conditioning(self, row: int) -> Motion | None:
        """The conditioning z of a conversation's last turn, ``[F, D]`` (of the last round, when there are several)."""
        z = self._conditioning[row]
        return None if z is None else z.float().cpu().numpy()

    @torch.inference_mode()
    def step(self, turns: Sequence[TurnData | None]) -> list[Motion | None]:
        """The agent's motion ``[F, 56]`` (float32) for each conversation's complete turn; None without a turn."""
        rows, present = self._present_turns(turns)
        if not rows:
            return [None] * len(self)
        tokens, motion = self._turn(rows, present, self._guidance)
        encoded = self.iterations == 1 and self.options.mask_history_agent
        for index, row in enumerate(rows):
            self._remember(row, tokens[index], motion[index], encoded)
        return self._scatter(rows, motion)

    @torch.inference_mode()
    def plan(self, turns: Sequence[TurnData | None]) -> list[Motion | None]:
        """Motion for turns that begin now, from the agent's coming speech alone; :meth:`observe` must follow."""
        rows, present = self._present_turns(turns)
        if not rows:
            return [None] * len(self)
        present = [dataclasses.replace(turn, user_speech=None, user_motion=None) for turn in present]
        _, motion = self._turn(rows, present, guidance=1.0)
        for index, row in enumerate(rows):
            plans = self._planned[row]
            plans[self.turns[row]] = motion[index]
            if len(plans) > _MOST_PLANS:
                del plans[min(plans)]
        return self._scatter(rows, motion)

    @torch.inference_mode()
    def observe(self, turns: Sequence[TurnData | None]) -> None:
        """Add turns that were planned or dropped to the history, as they really happened."""
        rows, present = self._present_turns(turns)
        if rows:
            tokens = self._tokens(present)
            for index, (row, turn) in enumerate(zip(rows, present, strict=True)):
                motion = self._planned[row].get(self.turns[row])
                if turn.motion is not None:
                    motion = self._tensor(_checked(turn.motion, self._motion_shape, "agent motion"))
                self._remember(row, tokens[index], motion, encoded=False)

    def amend_plan(self, row: int, number: int, motion: Motion) -> None:
        """Set the agent's real motion ``[F, 56]`` in a planned turn; :meth:`observe` stores it instead of the plan."""
        if number in self._planned[row]:
            self._planned[row][number] = self._tensor(motion)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Idle-time work: encode shifted or corrected history and draw noise. The next step does any remaining work."""
        self.engine.prepare()
        for row, turn in enumerate(self.turns):
            self._drawn[row] = ((self.seeds[row], turn), self._draw(row))

    def reset(self, row: int | None = None) -> None:
        """Forget one conversation, or all; turn numbers start at 0 again."""
        for each in range(len(self)) if row is None else (row,):
            self.engine.restore(each, ())
            self.turns[each] = 0
            self._heads[each].reset()
            self._shown[each] = _nowhere()
            self._planned[each], self._conditioning[each] = {}, None

    @torch.inference_mode()
    def state_dict(self, row: int) -> dict[str, NDArray[Any]]:
        """A conversation's state as plain arrays (fit for np.savez), enough to resume it elsewhere."""
        history, config = self.engine.histories[row], self.model.config
        shape = (0, config.turn_tokens, config.token_width)
        tokens = torch.stack([turn.tokens for turn in history]) if history else torch.zeros(shape)
        masked = torch.stack([turn.masked for turn in history]) if history else torch.zeros(shape[:2], dtype=torch.bool)
        plans = self._planned[row]
        motions = torch.stack(list(plans.values())) if plans else torch.zeros((0, *self._motion_shape))
        return {
            "tokens": tokens.float().cpu().numpy(),
            "masked": masked.cpu().numpy(),
            "planned": motions.cpu().numpy(),
            "planned_turns": np.array(list(plans), dtype=np.int64),
            "head": self._heads[row].state_dict()["state"],
            "shown": self._shown[row],
            "turn": np.array(self.turns[row]),
            "seed": np.array(self.seeds[row]),
            "model": np.array(self.model.sha256),
        }

    @torch.inference_mode()
    def load_state_dict(self, row: int, state: Mapping[str, NDArray[Any]]) -> None:
        """Resume a conversation that :meth:`state_dict` saved.

        :raises UserError: when it was saved with another model or a longer window.
        """
        missing = {"tokens", "masked", "planned", "planned_turns", "head", "shown", "turn", "seed", "model"} - set(
            state
        )
        if missing:
            raise UserError(f"saved conversation lacks {', '.join(sorted(missing))}: start a new one")
        if str(state["model"]) != self.model.sha256:
            raise UserError(
                "saved conversation is of another model: start a new one, or load the model it was saved with"
            )
        tokens = torch.as_tensor(state["tokens"]).to(self.model.device, self.model.dtype)
        masked = torch.as_tensor(state["masked"]).to(self.model.device)
        config = self.model.config
        if tokens.shape[1:] != (config.turn_tokens, config.token_width) or masked.shape != tokens.shape[:2]:
            raise UserError(f"saved conversation has tokens of shape {list(tokens.shape)}: damaged")
        if len(tokens) > self.engine.window.turns - 1:
            raise UserError(f"saved conversation has {len(tokens)} turns of history, more than this window holds")
        self.engine.restore(row, [HistoryTurn(*pair) for pair in zip(tokens, masked, strict=True)])
        planned = torch.as_tensor(state["planned"], device=self.model.device)
        if planned.shape != (len(state["planned_turns"]), *self._motion_shape):
            raise UserError(f"saved conversation has plans of shape {list(planned.shape)}: damaged")
        try:
            self._heads[row].load_state_dict({"state": state["head"]})
        except ValueError as error:
            raise UserError(f"saved conversation has a head of shape {list(state['head'].shape)}: damaged") from error
        shown = np.asarray(state["shown"], np.float32)
        if shown.shape != (SHOWN, 3):
            raise UserError(f"saved conversation has poses of shape {list(shown.shape)}: damaged")
        self._shown[row] = shown
        self._planned[row] = dict(zip(map(int, state["planned_turns"]), planned, strict=True))
        self.turns[row], self.seeds[row] = int(state["turn"]), int(state["seed"])
        self._conditioning[row] = None

    # The parts of a step

    def _present_turns(self, turns: Sequence[TurnData | None]) -> tuple[list[int], list[TurnData]]:
        if len(turns) != len(self):
            raise UserError(
                f"{len(turns)} turns for {len(self)} conversations: give one each, None where there is none"
            )
        present = [(row, turn) for row, turn in enumerate(turns) if turn is not None]
        for row, turn in present:
            if turn.number is not None:
                self.turns[row] = turn.number
        return [row for row, _ in present], [turn for _, turn in present]

    def _turn(self, rows: Sequence[int], present: Sequence[TurnData], guidance: float) -> tuple[Tensor, Tensor]:
        """Tokens ``[A, 4F + 10, d]`` and motion ``[A, F, 56]`` (fp32) of current turns."""
        if isinstance(self.engine, CachedEngine) and self.engine.padded and self.iterations == 1:
            tokens, drawn = self._static_turn(self.engine, rows, present, guidance)
        else:
            tokens = self._tokens(present)
            drawn = self._decode(rows, tokens, present, guidance)
        motion = self.model.shut_without_voice(self._cross_over(rows, drawn), tokens)
        if self._joint:
            for row, poses in zip(rows, motion[:, -SHOWN:, HEAD].float().cpu().numpy(), strict=True):
                self._shown[row] = np.concatenate([self._shown[row], poses])[-SHOWN:]
        return tokens, motion

    def _static_turn(
        self, engine: CachedEngine, rows: Sequence[int], present: Sequence[TurnData], guidance: float
    ) -> tuple[Tensor, Drawn]:
        """Tokens and sampled motion, computed in fixed shapes that include conversations without a turn."""
        engine.prepare(rows)
        branches = 1 if guidance == 1.0 else 2
        known = self._known(rows, present, len(self))
        turn = self._static.get((branches, known is not None))
        if turn is None:
            turn = self._static[branches, known is not None] = StaticTurn(engine, branches)
        count, samples = len(self), self.model.config.turn_samples
        speech = np.zeros((2, count, samples), np.float32)
        motion = np.full((count, *self._motion_shape), np.nan, np.float32)
        noise = np.zeros((self.steps + 1, count, *self._motion_shape), np.float32)
        heard = np.zeros(count, bool)
        for row, each in zip(rows, present, strict=True):
            heard[row] = each.user_speech is not None
            if each.user_speech is not None:
                speech[0, row] = _checked(each.user_speech, (samples,), "user speech")
            speech[1, row] = _checked(each.agent_speech, (samples,), "agent speech")
            if each.user_motion is not None:
                motion[row] = self._checked_motion(each.user_motion)
            noise[0, row], noise[1:, row] = self._noise(row, each)
        lengths = np.array([len(history) for history in engine.histories])
        style = np.array([self.options.temperature, guidance], np.float32)
        drawn_from = self._movement(rows, present)
        movement, shown, liveliness = (np.zeros((count, *each.shape[1:]), np.float32) for each in drawn_from)
        movement[rows], shown[rows], liveliness[rows] = drawn_from
        inputs = (speech[0], heard, speech[1], motion, lengths, noise[0], noise[1:], style, movement, shown, liveliness)
        tokens, z, frames, expected = turn(*[self._tensor(each) for each in (*inputs, *(known or ()))])
        chosen = torch.tensor(rows, device=self.model.device)
        self._keep_conditioning(rows, z[chosen])
        return tokens[chosen], Drawn(frames[chosen], expected[chosen])

    def _cross_over(self, rows: Sequence[int], drawn: Drawn) -> Tensor:
        """Motion ``[A, F, 56]`` from the samples and posterior means ``[A, F, 56]`` of current turns."""
        heads = [self._heads[row] for row in rows]
        if not heads[0].enabled or self._joint:
            return drawn.frames
        frames, expected = (each.cpu().numpy() for each in drawn)
        crossed = [head.apply(*pair) for head, *pair in zip(heads, frames, expected, strict=True)]
        return self._tensor(np.stack(crossed))

    def _tokens(self, present: Sequence[TurnData]) -> Tensor:
        """Tokens ``[A, 4F + 10, d]`` of turns; the encoder takes both speakers' speech as one batch."""
        model, config = self.model, self.model.config
        heard = [turn.user_speech for turn in present if turn.user_speech is not None]
        samples = [_checked(speech, (config.turn_samples,), "user speech") for speech in heard]
        samples += [_checked(turn.agent_speech, (config.turn_samples,), "agent speech") for turn in present]
        speech = model.encode_speech(self._tensor(np.stack(samples)))
        agent = speech[len(heard) :]
        user = model.fake_latent.expand_as(agent).clone()
        user[[index for index, turn in enumerate(present) if turn.user_speech is not None]] = speech[: len(heard)]
        motion = np.full((len(present), config.turn_frames, config.motion_width), np.nan, np.float32)
        for index, turn in enumerate(present):
            if turn.user_motion is not None:
                motion[index] = self._checked_motion(turn.user_motion)
        motion_tokens = model.encode_motion(self._tensor(motion))
        return model.assemble(user, motion_tokens, agent, torch.zeros_like(agent))

    def _decode(self, rows: Sequence[int], tokens: Tensor, present: Sequence[TurnData], guidance: float) -> Drawn:
        """Sampled motion ``[A, F, 56]`` (fp32) for current turns ``[A, 4F + 10, d]``, in ``iterations`` rounds."""
        model, options = self.model, self.options
        frames, count = model.config.turn_frames, len(rows)
        noise = [self._noise(row, turn) for row, turn in zip(rows, present, strict=True)]
        initial = self._tensor(np.stack([pair[0] for pair in noise]))
        added = self._tensor(np.stack([pair[1] for pair in noise], axis=1))
        rank = torch.arange(frames, device=model.device).expand(count, -1)
        masked = self._masks[1].repeat(count, 1)
        motion, expected = torch.zeros((2, count, frames, model.config.motion_width), device=model.device)
        tokens, left = tokens.clone(), frames
        for each in range(self.iterations):
            remaining = frames_left(each, self.iterations, frames, left)
            taken = (rank >= frames - left) & (rank < frames - remaining)
            branches = torch.stack((tokens, model.without_user(tokens)), 1) if guidance != 1.0 else tokens.unsqueeze(1)
            z = self.engine.condition(rows, branches, masked)
            strength = guidance
            if self.guidance_schedule == "linear":
                strength = 1 + (guidance - 1) * (frames - remaining) / frames
            chosen = z.transpose(1, 2)[taken]  # [frames of this round over all, G, D]
            drawn = model.sample_motion(chosen, (initial[taken], added[:, taken]), options.temperature, strength)
            motion[taken], expected[taken] = drawn
            masked[:, self._agent] &= ~taken
            tokens[:, self._agent][taken] = model.encode_motion(drawn.frames)
            left = remaining
        if self._joint:
            noise_of_movement, shown, liveliness = (self._tensor(each) for each in self._movement(rows, present))
            noise_of_movement *= options.temperature
            known = self._known_tensors(rows, present)
            poses = model.sample_head(z, shown, liveliness, noise_of_movement, guidance, known)
            motion[..., HEAD] = expected[..., HEAD] = poses
        self._keep_conditioning(rows, z[:, 0])
        return Drawn(motion, expected)

    def _movement(self, rows: Sequence[int], present: Sequence[TurnData]) -> tuple[Motion, Motion, Motion]:
        """Inputs of a joint head: noise ``[A, K, 3]``, previous poses ``[A, SHOWN, 3]``, log of liveliness ``[A]``.

        Noise and poses are empty for a model that samples the head frame by frame.
        """
        if not self._joint:
            nothing = np.zeros((len(rows), 0, 3), np.float32)
            return nothing, nothing, np.zeros(len(rows), np.float32)
        noise, shown, liveliness = [], [], []
        for row, turn in zip(rows, present, strict=True):
            coefficients = self.model.config.joint_coefficients
            if turn.movement is None:
                noise.append(movement_noise(self.seeds[row], self.turns[row], coefficients))
            else:
                noise.append(_checked(turn.movement, (coefficients, 3), "movement noise"))
            poses = self._shown[row]
            if turn.shown is not None:
                poses = np.concatenate([_nowhere(), np.asarray(turn.shown, np.float32)[-SHOWN:, HEAD]])[-SHOWN:]
            shown.append(poses)
            wanted = self.options.liveliness if turn.liveliness is None else turn.liveliness
            liveliness.append(np.clip(wanted * self.amplitudes[row], *LIVELINESS))
        return np.stack(noise), np.stack(shown), np.log(np.asarray(liveliness, np.float32))

    def _known(
        self, rows: Sequence[int], present: Sequence[TurnData], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Known poses ``[count, F, 3]`` and their gains ``[count, 3, K, F]``; None if no turn has known poses."""
        if not self._joint or all(turn.known is None for turn in present):
            return None
        config = self.model.config
        poses = np.zeros((count, config.turn_frames, 3), np.float32)
        gains = np.zeros((count, 3, config.joint_coefficients, config.turn_frames), np.float32)
        for row, turn in zip(rows, present, strict=True):
            known = np.zeros((0, 3), np.float32) if turn.known is None else np.asarray(turn.known, np.float32)
            poses[row, : len(known)] = known
            gains[row] = self._known_gain(len(known))
        return poses, gains

    def _known_tensors(self, rows: Sequence[int], present: Sequence[TurnData]) -> tuple[Tensor, Tensor] | None:
        """As :meth:`_known`, for the rows of these turns alone."""
        known = self._known(range(len(rows)), present, len(rows))
        return None if known is None else (self._tensor(known[0]), self._tensor(known[1]))

    def _keep_conditioning(self, rows: Sequence[int], z: Tensor) -> None:
        for row, conditioning in zip(rows, z, strict=True):
            self._conditioning[row] = conditioning

    def _checked_motion(self, motion: ArrayLike) -> Motion:
        return _checked(motion, self._motion_shape, "user motion", untracked=True)

    def _noise(self, row: int, turn: TurnData) -> tuple[Motion, Motion]:
        if turn.noise is not None:
            initial, steps = turn.noise
            shape = self._motion_shape
            return _checked(initial, shape, "initial noise"), _checked(steps, (self.steps, *shape), "step noise")
        key, noise = self._drawn.pop(row, (None, None))
        if noise is None or key != (self.seeds[row], self.turns[row]):
            noise = self._draw(row)
        return noise

    def _draw(self, row: int) -> tuple[Motion, Motion]:
        seed, turn = self.seeds[row], self.turns[row]
        return turn_noise(
            seed,
            turn,
            self.steps,
            *self._motion_shape,
            correlation=self._correlation,
            head_correlation=self._head_correlation,
        )

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.model.device)

    def _remember(self, row: int, tokens: Tensor, motion: Tensor | None, encoded: bool) -> None:
        """Write a finished turn into the history; motion is remembered only when the history is open."""
        hidden = self.options.mask_history_agent or motion is None
        if motion is not None and not hidden:
            tokens = tokens.clone()
            tokens[self._agent] = self.model.encode_motion(motion)
        self.engine.append(row, HistoryTurn(tokens, self._masks[int(hidden)]), encoded)
        now = self.turns[row]
        self._planned[row] = {turn: plan for turn, plan in self._planned[row].items() if turn > now}
        self.turns[row] += 1

    def _scatter(self, rows: Sequence[int], motion: Tensor) -> list[Motion | None]:
        out: list[Motion | None] = [None] * len(self)
        for row, values in zip(rows, motion.cpu().numpy(), strict=True):
            out[row] = values
        return out


def _nowhere() -> Motion:
    """Unknown poses ``[SHOWN, 3]``: NaN."""
    return np.full((SHOWN, 3), np.nan, np.float32)


def make_engine(name: str, model: Timar, window: Window, conversations: int) -> Engine:
    """The engine by name; models that allow no cache (bidirectional, encoder-decoder) always get the oracle."""
    if name not in ("cached", "oracle"):
        raise UserError(f"engine = '{name}': use cached or oracle")
    if name == "oracle":
        return FullWindow(model, window, conversations)
    if CachedEngine.serves(model):
        return CachedEngine(packed(model) if model.device.type == "cpu" else model, window, conversations)
    if model not in _warned:
        _warned.add(model)
        log.warning("%s: %s", model.name, NO_CACHE)
    return FullWindow(model, window, conversations)


def frames_left(round_index: int, rounds: int, frames: int, left: int) -> int:
    """How many frames of a turn stay masked after a round (cosine schedule), of ``left`` masked before the round.

    At least one frame stays for each later round; each round but the last takes at least one while two are left.
    """
    if round_index == rounds - 1:
        return 0
    return max(1, min(left - 1, math.floor(frames * math.cos(math.pi / 2 * (round_index + 1) / rounds))))


def _checked(values: ArrayLike, shape: tuple[int, ...], what: str, untracked: bool = False) -> Motion:
    array = np.asarray(values, dtype=np.float32)
    if array.shape != shape:
        raise UserError(f"{what} has shape {list(array.shape)}, a turn needs {list(shape)}")
    bad = np.isinf(array) if untracked else ~np.isfinite(array)
    if bad.any():
        raise UserError(f"{what} holds {int(bad.sum())} values that are not finite")
    return array
