"""Many conversations on one device, a turn of each in one pass."""

from __future__ import annotations

import dataclasses
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
from timar_ros.model.timar import HEAD
from timar_ros.model.tokens import agent_motion_slice
from timar_ros.streaming.crossover import HeadCrossover
from timar_ros.streaming.engine import POLICIES, Engine, FullWindow, HistoryTurn, Window
from timar_ros.streaming.engine_cached import CachedEngine
from timar_ros.streaming.engine_static import StaticTurn
from timar_ros.streaming.noise import frame_order, movement_noise, turn_noise

log = logging.getLogger(__name__)

NO_CACHE = "its attention is not causal or it has a decoder, so every turn computes the whole window (engine: oracle)"

_told: weakref.WeakSet[Timar] = weakref.WeakSet()  # models of which NO_CACHE was said

LIVELINESS = (0.3, 2.0)  # the range of the dial; training saw 0.45 to 2.2

_MOST_PLANS = 4  # planned turns whose end is waited for: a turn may be planned before the one before it is over

Noise = tuple[ArrayLike, ArrayLike]
Motion = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class ConversationOptions:
    """How motion is sampled and how much is remembered. See :class:`timar_ros.streaming.Conversation`."""

    context_seconds: float | None = None
    mask_history_agent: bool = True
    guidance: float = 1.0
    guidance_schedule: str = "constant"
    temperature: float = 1.0
    sampling_steps: int | None = None
    iterations: int = 1
    order: str = "left_to_right"
    context_policy: str = "sliding"
    kept_turns: int = 3
    noise_correlation: float | None = None
    head_crossover: float | None = None
    liveliness: float = 1.0

    def check(self, model: Timar) -> None:
        """:raises UserError: on a value that the model cannot serve."""
        longest = model.config.context_seconds
        if self.context_seconds is not None:
            turns = self.context_seconds / model.config.turn_seconds
            if not (math.isclose(turns, round(turns)) and 1 <= round(turns) <= model.config.context_turns):
                raise UserError(
                    f"context_seconds = {self.context_seconds}: need whole turns of {model.config.turn_seconds} s, "
                    f"at most {longest} s"
                )
        for name, value, allowed in (
            ("guidance_schedule", self.guidance_schedule, ("constant", "linear")),
            ("order", self.order, ("left_to_right", "random")),
            ("context_policy", self.context_policy, POLICIES),
        ):
            if value not in allowed:
                raise UserError(f"{name} = '{value}': use {' or '.join(allowed)}")
        for name, number, low, high in (
            ("sampling_steps", self.sampling_steps or 2, 2, 1000),
            ("iterations", self.iterations, 1, model.config.turn_frames),
            ("kept_turns", self.kept_turns, 0, model.config.context_turns),
            ("head_crossover", self.head_crossover or 0, 0, model.config.motion_rate / 4),
        ):
            if not low <= number <= high:
                raise UserError(f"{name} = {number}: must be within {low} and {high}")
        for name, real in (
            ("guidance", self.guidance),
            ("temperature", self.temperature),
            ("noise_correlation", self.noise_correlation or 0.0),
            ("liveliness", self.liveliness),
        ):
            if not (math.isfinite(real) and real >= 0):
                raise UserError(f"{name} = {real}: must be finite and not negative")
        least, most = LIVELINESS
        if not least <= self.liveliness <= most:
            raise UserError(f"liveliness = {self.liveliness}: must be within {least} and {most}")


@dataclasses.dataclass
class TurnData:
    """One conversation's turn: normalised speech ``[N]`` each, the user's motion ``[F, 56]`` (NaN: untracked) or None.

    :ivar user_speech: None in a planned turn, whose user is not heard yet.
    :ivar noise: ``(initial [F, 56], steps [S, F, 56])`` to reproduce a run; None: from (seed, turn number).
    :ivar number: the turn's number; None: one more than the conversation's last.
    :ivar motion: of a turn that is only observed, what the agent did ``[F, 56]``; None: what was planned, if anything.
    :ivar shown: frames ``[n, 56]`` that were shown last before this turn, oldest first, 12 or more; None: the end of
        the turn that was drawn last. A joint head goes on from there.
    :ivar liveliness: how much the head moves against an average person's (joint head); None: as the options say.
    """

    user_speech: ArrayLike | None
    agent_speech: ArrayLike
    user_motion: ArrayLike | None = None
    noise: Noise | None = None
    number: int | None = None
    motion: ArrayLike | None = None
    shown: ArrayLike | None = None
    liveliness: float | None = None


class ConversationBatch:
    """B conversations that share a device; each has its own history, length and turn number.

    A conversation's result does not depend on who shares the batch (up to rounding).

    :param engine: ``cached`` (keys and values of past turns are kept) or ``oracle`` (the whole window at every turn).
    :param seed: one for all, or one a conversation; None draws one.
    :param options: see :class:`timar_ros.streaming.Conversation`.
    """

    def __init__(
        self,
        model: Timar,
        conversations: int,
        *,
        seed: int | Sequence[int] | None = None,
        engine: str = "cached",
        **options: Any,
    ) -> None:
        model.eval()
        self.options = ConversationOptions(**options)
        self.options.check(model)
        config = model.config
        seconds = config.context_seconds if self.options.context_seconds is None else self.options.context_seconds
        window = Window(round(seconds / config.turn_seconds), self.options.context_policy, self.options.kept_turns)
        self.engine = make_engine(engine, model, window, conversations)
        self.model = self.engine.model
        if seed is None:
            seed = secrets.randbits(62)
        self.seeds = [seed] * conversations if isinstance(seed, int) else list(seed)
        if len(self.seeds) != conversations:
            raise UserError(f"{len(self.seeds)} seeds for {conversations} conversations: give one, or one each")
        for each in self.seeds:
            if not 0 <= each < 2**63:
                raise UserError(f"seed = {each}: must be within 0 and 2^63 - 1")
        self.turns = [0] * conversations
        self.steps = self.options.sampling_steps or config.sampling_steps
        correlation = self.options.noise_correlation
        self._correlation = config.motion_rate * (config.noise_correlation if correlation is None else correlation)
        # Who names a correlation means it for every column.
        self._head_correlation = config.motion_rate * (config.head_noise_correlation if correlation is None else 0.0)
        hertz = config.head_crossover if self.options.head_crossover is None else self.options.head_crossover
        self._heads = [HeadCrossover(hertz, config.head_emphasis, config.motion_rate) for _ in range(conversations)]
        self._joint = config.head == "joint"
        self._shown = [_nowhere() for _ in range(conversations)]  # head poses [SHOWN, 3] drawn last
        self._planned: list[dict[int, Tensor]] = [{} for _ in range(conversations)]  # motion by turn
        self._conditioning: list[Tensor | None] = [None] * conversations
        self._static: dict[int, StaticTurn] = {}  # by branches
        hidden = torch.zeros((2, config.turn_tokens), dtype=torch.bool, device=model.device)
        hidden[1, agent_motion_slice(config.turn_frames)] = True
        self._masks = hidden  # of a turn whose agent motion is known, and of one whose is not
        self._drawn: dict[int, tuple[tuple[int, int], tuple[Motion, Motion]]] = {}
        self._agent = agent_motion_slice(config.turn_frames)
        self._motion_shape = (config.turn_frames, config.motion_width)

    def __len__(self) -> int:
        return len(self.turns)

    def conditioning(self, row: int) -> Motion | None:
        """The conditioning z of a conversation's last turn, ``[F, D]`` (of the last round, when there are several)."""
        z = self._conditioning[row]
        return None if z is None else z.float().cpu().numpy()

    @torch.inference_mode()
    def step(self, turns: Sequence[TurnData | None]) -> list[Motion | None]:
        """The agent's motion ``[F, 56]`` (float32) for each conversation's complete turn; None where there is none."""
        rows, given = self._given(turns)
        if not rows:
            return [None] * len(self)
        tokens, motion = self._turn(rows, given, self.options.guidance)
        encoded = self.options.iterations == 1 and self.options.mask_history_agent
        for index, row in enumerate(rows):
            self._remember(row, tokens[index], motion[index], encoded)
        return self._scatter(rows, motion)

    @torch.inference_mode()
    def plan(self, turns: Sequence[TurnData | None]) -> list[Motion | None]:
        """Motion for turns that begin now, from the agent's coming speech alone; :meth:`observe` must follow."""
        rows, given = self._given(turns)
        if not rows:
            return [None] * len(self)
        given = [dataclasses.replace(turn, user_speech=None, user_motion=None) for turn in given]
        _, motion = self._turn(rows, given, guidance=1.0)
        for index, row in enumerate(rows):
            plans = self._planned[row]
            plans[self.turns[row]] = motion[index]
            if len(plans) > _MOST_PLANS:
                del plans[min(plans)]
        return self._scatter(rows, motion)

    @torch.inference_mode()
    def observe(self, turns: Sequence[TurnData | None]) -> None:
        """What really happened in turns that were planned, or that were dropped: goes into the history."""
        rows, given = self._given(turns)
        if rows:
            tokens = self._tokens(given)
            for index, (row, turn) in enumerate(zip(rows, given, strict=True)):
                motion = self._planned[row].get(self.turns[row])
                if turn.motion is not None:
                    motion = self._tensor(_checked(turn.motion, self._motion_shape, "agent motion"))
                self._remember(row, tokens[index], motion, encoded=False)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Idle-time work: shifted or corrected history encoded anew, noise drawn. The next step does what is left."""
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
        """A conversation's memory as plain arrays (fit for np.savez): what it takes to go on elsewhere."""
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
        """Take up a conversation that :meth:`state_dict` saved.

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

    def _given(self, turns: Sequence[TurnData | None]) -> tuple[list[int], list[TurnData]]:
        if len(turns) != len(self):
            raise UserError(
                f"{len(turns)} turns for {len(self)} conversations: give one each, None where there is none"
            )
        given = [(row, turn) for row, turn in enumerate(turns) if turn is not None]
        for row, turn in given:
            if turn.number is not None:
                self.turns[row] = turn.number
        return [row for row, _ in given], [turn for _, turn in given]

    def _turn(self, rows: Sequence[int], given: Sequence[TurnData], guidance: float) -> tuple[Tensor, Tensor]:
        """Tokens ``[A, 4F + 10, d]`` and motion ``[A, F, 56]`` (fp32) of current turns."""
        if isinstance(self.engine, CachedEngine) and self.engine.padded and self.options.iterations == 1:
            tokens, drawn = self._static_turn(self.engine, rows, given, guidance)
        else:
            tokens = self._tokens(given)
            drawn = self._decode(rows, tokens, given, guidance)
        motion = self._cross_over(rows, drawn)
        if self._joint:
            for row, poses in zip(rows, motion[:, -SHOWN:, HEAD].float().cpu().numpy(), strict=True):
                self._shown[row] = np.concatenate([self._shown[row], poses])[-SHOWN:]
        return tokens, motion

    def _static_turn(
        self, engine: CachedEngine, rows: Sequence[int], given: Sequence[TurnData], guidance: float
    ) -> tuple[Tensor, Drawn]:
        """The tokens and what is drawn, by work of fixed shapes in which conversations without a turn ride along."""
        engine.prepare(rows)
        branches = 1 if guidance == 1.0 else 2
        turn = self._static.get(branches)
        if turn is None:
            turn = self._static[branches] = StaticTurn(engine, branches)
        count, samples = len(self), self.model.config.turn_samples
        speech = np.zeros((2, count, samples), np.float32)
        motion = np.full((count, *self._motion_shape), np.nan, np.float32)
        noise = np.zeros((self.steps + 1, count, *self._motion_shape), np.float32)
        heard = np.zeros(count, bool)
        for row, each in zip(rows, given, strict=True):
            heard[row] = each.user_speech is not None
            if each.user_speech is not None:
                speech[0, row] = _checked(each.user_speech, (samples,), "user speech")
            speech[1, row] = _checked(each.agent_speech, (samples,), "agent speech")
            if each.user_motion is not None:
                motion[row] = self._checked_motion(each.user_motion)
            noise[0, row], noise[1:, row] = self._noise(row, each)
        lengths = np.array([len(history) for history in engine.histories])
        style = np.array([self.options.temperature, guidance], np.float32)
        drawn_from = self._movement(rows, given)
        movement, shown, liveliness = (np.zeros((count, *each.shape[1:]), np.float32) for each in drawn_from)
        movement[rows], shown[rows], liveliness[rows] = drawn_from
        inputs = (speech[0], heard, speech[1], motion, lengths, noise[0], noise[1:], style, movement, shown, liveliness)
        tokens, z, frames, expected = turn(*[self._tensor(each) for each in inputs])
        chosen = torch.tensor(rows, device=self.model.device)
        self._keep_conditioning(rows, z[chosen])
        return tokens[chosen], Drawn(frames[chosen], expected[chosen])

    def _cross_over(self, rows: Sequence[int], drawn: Drawn) -> Tensor:
        """Motion ``[A, F, 56]`` of what was drawn for current turns, ``[A, F, 56]`` each."""
        heads = [self._heads[row] for row in rows]
        if not heads[0].enabled or self._joint:
            return drawn.frames
        frames, expected = (each.cpu().numpy() for each in drawn)
        crossed = [head.apply(*pair) for head, *pair in zip(heads, frames, expected, strict=True)]
        return self._tensor(np.stack(crossed))

    def _tokens(self, given: Sequence[TurnData]) -> Tensor:
        """Tokens ``[A, 4F + 10, d]`` of turns, both speakers' speech through the encoder as one batch."""
        model, config = self.model, self.model.config
        heard = [turn.user_speech for turn in given if turn.user_speech is not None]
        samples = [_checked(speech, (config.turn_samples,), "user speech") for speech in heard]
        samples += [_checked(turn.agent_speech, (config.turn_samples,), "agent speech") for turn in given]
        speech = model.encode_speech(self._tensor(np.stack(samples)))
        agent = speech[len(heard) :]
        user = model.fake_latent.expand_as(agent).clone()
        user[[index for index, turn in enumerate(given) if turn.user_speech is not None]] = speech[: len(heard)]
        motion = np.full((len(given), config.turn_frames, config.motion_width), np.nan, np.float32)
        for index, turn in enumerate(given):
            if turn.user_motion is not None:
                motion[index] = self._checked_motion(turn.user_motion)
        seen = model.encode_motion(self._tensor(motion))
        return model.assemble(user, seen, agent, torch.zeros_like(agent))

    def _decode(self, rows: Sequence[int], tokens: Tensor, given: Sequence[TurnData], guidance: float) -> Drawn:
        """What is drawn, ``[A, F, 56]`` (fp32), for current turns ``[A, 4F + 10, d]``, in ``iterations`` rounds."""
        model, options = self.model, self.options
        frames, count = model.config.turn_frames, len(rows)
        noise = [self._noise(row, turn) for row, turn in zip(rows, given, strict=True)]
        initial = self._tensor(np.stack([pair[0] for pair in noise]))
        added = self._tensor(np.stack([pair[1] for pair in noise], axis=1))
        order = torch.from_numpy(
            np.stack([frame_order(self.seeds[r], self.turns[r], frames, options.order) for r in rows])
        )
        rank = order.argsort(dim=1).to(model.device)
        masked = self._masks[1].repeat(count, 1)
        motion, expected = torch.zeros((2, count, frames, model.config.motion_width), device=model.device)
        tokens, left = tokens.clone(), frames
        for each in range(options.iterations):
            remaining = frames_left(each, options.iterations, frames, left)
            taken = (rank >= frames - left) & (rank < frames - remaining)
            branches = torch.stack((tokens, model.without_user(tokens)), 1) if guidance != 1.0 else tokens.unsqueeze(1)
            z = self.engine.condition(rows, branches, masked)
            strength = guidance
            if options.guidance_schedule == "linear":
                strength = 1 + (guidance - 1) * (frames - remaining) / frames
            chosen = z.transpose(1, 2)[taken]  # [frames of this round over all, G, D]
            drawn = model.sample_motion(chosen, (initial[taken], added[:, taken]), options.temperature, strength)
            motion[taken], expected[taken] = drawn
            masked[:, self._agent] &= ~taken
            tokens[:, self._agent][taken] = model.encode_motion(drawn.frames)
            left = remaining
        if self._joint:
            noise_of_movement, shown, liveliness = (self._tensor(each) for each in self._movement(rows, given))
            poses = model.sample_head(z, shown, liveliness, options.temperature * noise_of_movement, guidance)
            motion[..., HEAD] = expected[..., HEAD] = poses
        self._keep_conditioning(rows, z[:, 0])
        return Drawn(motion, expected)

    def _movement(self, rows: Sequence[int], given: Sequence[TurnData]) -> tuple[Motion, Motion, Motion]:
        """What a joint head draws from: noise ``[A, K, 3]``, poses before ``[A, SHOWN, 3]``, log of liveliness ``[A]``.

        Noise and poses are empty where the head is drawn frame by frame.
        """
        if not self._joint:
            nothing = np.zeros((len(rows), 0, 3), np.float32)
            return nothing, nothing, np.zeros(len(rows), np.float32)
        noise, shown, liveliness = [], [], []
        for row, turn in zip(rows, given, strict=True):
            noise.append(movement_noise(self.seeds[row], self.turns[row], self.model.config.joint_coefficients))
            poses = self._shown[row]
            if turn.shown is not None:
                poses = np.concatenate([_nowhere(), np.asarray(turn.shown, np.float32)[-SHOWN:, HEAD]])[-SHOWN:]
            shown.append(poses)
            liveliness.append(self.options.liveliness if turn.liveliness is None else turn.liveliness)
        return np.stack(noise), np.stack(shown), np.log(np.asarray(liveliness, np.float32))

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
    """Poses ``[SHOWN, 3]`` of a head that was not seen yet."""
    return np.full((SHOWN, 3), np.nan, np.float32)


def make_engine(name: str, model: Timar, window: Window, conversations: int) -> Engine:
    """The engine by name; models whose past cannot be kept (bidirectional, encoder-decoder) always get the oracle."""
    if name not in ("cached", "oracle"):
        raise UserError(f"engine = '{name}': use cached or oracle")
    if name == "oracle":
        return FullWindow(model, window, conversations)
    if CachedEngine.serves(model):
        return CachedEngine(packed(model) if model.device.type == "cpu" else model, window, conversations)
    if model not in _told:
        _told.add(model)
        log.warning("%s: %s", model.name, NO_CACHE)
    return FullWindow(model, window, conversations)


def frames_left(round_index: int, rounds: int, frames: int, left: int) -> int:
    """How many of a turn's frames are still masked after a round (cosine schedule), of ``left`` masked before it.

    At least one stays for each round to come, and each round but the last takes at least one while there are two.
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
