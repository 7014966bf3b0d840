"""From turns to motion: normalising, the conversation, joined seams, who speaks; the same live, offline and in replay.

The nodes, ``generate`` and replays of bags all run this object, so that what a robot did live can be computed again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.streaming.activity import ActivityDetector
from timar_ros.streaming.normalise import KINDS, make_normaliser
from timar_ros.streaming.seams import Inertialiser
from timar_ros.streaming.turn_checks import RejectedError, check_frames
from timar_ros.streaming.turn_types import PLANNING_LEAD, TurnInput

if TYPE_CHECKING:
    from timar_ros.model import Timar

Frames = NDArray[np.float32]
State = dict[str, NDArray[Any]]
Options = TypeVar("Options")

MODES = ("reactive", "anticipatory")
# Time to compute, to travel and to be played, that motion gets beyond the turn itself [s].
MARGIN = 0.15
LARGEST_SEED = 2**63 - 1
# Planned turns whose completion is waited for.
MOST_PLANS = 4


@dataclass(frozen=True)
class PipelineOptions:
    """How turns become motion. Every value is checked when the options are made.

    :raises UserError: on a value that cannot be, naming it and what is allowed.
    """

    mode: Literal["reactive", "anticipatory"] = "reactive"
    """When a turn's motion is made: when the turn is over, or when it begins, the agent's speech being known ahead."""
    seed: int = 0
    """Noise is a function of the seed and the turn's number."""
    guidance: float = 1.0
    """Strength of classifier-free guidance; 1: none."""
    guidance_schedule: str = "constant"
    temperature: float = 1.0
    """Multiplies the noise that sampling adds."""
    sampling_steps: int | None = None
    """Diffusion steps; None: the model's."""
    noise_correlation: float | None = None
    """Seconds over which the noise of every column is correlated; None: what the model recommends."""
    head_crossover: float | None = None
    """Below it [Hz] the head moves as drawn, above it as expected; 0: as drawn; None: what the model recommends."""
    context_seconds: float | None = None
    """The window, current turn included [s]; None: the model's longest."""
    context_policy: str = "sliding"
    """"sliding": always the newest turns; "stepped": a fourth of the idle work, history of 3 to 7 turns."""
    kept_turns: int = 3
    mask_history_agent: bool = True
    """Whether the agent's own past motion is hidden from the network."""
    iterations: int = 1
    order: str = "left_to_right"
    normalising: Literal["running", "clip"] = "running"
    """Speech by what was heard so far, or by the whole recording (offline only)."""
    seams: bool = True
    """Whether jumps between turns are taken out."""
    seam_frames: int = 8
    """Over how many frames they are."""
    playback_delay: float | None = None
    """Motion for time t is shown at t + this [s]; None: a turn and 0.15 s, in anticipatory mode 0."""
    planning_lead: float = PLANNING_LEAD
    """Anticipatory: a turn is planned so long before it begins [s], and the user heard so much later. Whoever cuts the
    turns (TurnBuilder) is to be given it."""
    engine: Literal["cached", "oracle"] = "cached"

    def __post_init__(self) -> None:
        for name, allowed in (("mode", MODES), ("normalising", KINDS), ("engine", ("cached", "oracle"))):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} = '{getattr(self, name)}': use {' or '.join(allowed)}")
        for name, low, high in (("seed", 0, LARGEST_SEED), ("seam_frames", 2, 100)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"{name} = {value}: must be a whole number from {low} to {high}")
        for name, highest in (
            ("guidance", 20.0),
            ("temperature", 10.0),
            ("playback_delay", 60.0),
            ("planning_lead", 60.0),
            ("context_seconds", 3600.0),
            ("noise_correlation", 60.0),
            ("head_crossover", MOTION_RATE / 4),
        ):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and 0.0 <= value <= highest):
                raise UserError(f"{name} = {value}: must be a number from 0 to {highest:g}")

    def delay_ns(self, turn_seconds: float) -> int:
        """The playback delay [ns] with turns of this length."""
        if self.playback_delay is not None:
            return round(self.playback_delay * 1e9)
        return 0 if self.mode == "anticipatory" else round((turn_seconds + MARGIN) * 1e9)

    def conversation_arguments(self) -> dict[str, Any]:
        """What Conversation and ConversationBatch take of these."""
        own = {"mode", "seed", "normalising", "seams", "seam_frames", "playback_delay", "planning_lead", "engine"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}


@dataclass
class TurnMotion:
    """The agent's motion for one turn."""

    number: int
    """The turn's."""
    stamp_ns: int
    """When the first frame is to be shown [ns]: the turn's stamp and the playback delay."""
    rate: float
    """Frames a second [Hz]."""
    frames: Frames
    """[F, 56] in TIMAR order, always finite."""
    speaking: NDArray[np.uint8]
    """[F], 1 while the agent speaks."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage took, and ``total``."""


class Talk(Protocol):
    """What a pipeline needs of :class:`timar_ros.streaming.Conversation`."""

    def step(
        self, user_speech: Frames, agent_speech: Frames, user_motion: Frames | None, *, number: int | None
    ) -> Frames:
        """Motion for a complete turn."""
        ...

    def plan(self, agent_speech: Frames, *, number: int | None) -> Frames:
        """Motion for a turn that begins."""
        ...

    def observe(
        self,
        user_speech: Frames,
        agent_speech: Frames,
        user_motion: Frames | None,
        motion: Frames | None = None,
        *,
        number: int | None,
    ) -> None:
        """What really happened in a turn."""

    def prepare(self) -> None:
        """Idle-time work."""

    def reset(self) -> None:
        """Forget everything."""

    def state_dict(self) -> State:
        """The memory."""
        ...

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a memory."""


@dataclass
class Heard:
    """A turn made ready for the model."""

    turn: TurnInput
    user_speech: Frames
    agent_speech: Frames
    user_motion: Frames | None
    speaking: NDArray[np.bool_]
    done: Frames | None
    """What the agent did in this turn, where it was planned."""
    seconds: float


class Stages:
    """What happens to one conversation's turns before and after the model."""

    def __init__(
        self,
        options: PipelineOptions,
        turn_seconds: float,
        user_clip: Frames | None = None,
        agent_clip: Frames | None = None,
    ) -> None:
        self.options = options
        self.samples = round(turn_seconds * MODEL_RATE)
        self.frames = round(turn_seconds * MOTION_RATE)
        self.delay_ns = options.delay_ns(turn_seconds)
        self.broken_turns = 0
        self._normalisers = {
            "user": make_normaliser(options.normalising, user_clip),
            "agent": make_normaliser(options.normalising, agent_clip),
        }
        self._activity = {role: ActivityDetector() for role in self._normalisers}
        self._seams = Inertialiser(options.seam_frames, options.seams)
        self._shown: int | None = None  # number of the last turn that got motion
        self._rest = np.zeros(MOTION_SIZE, dtype=np.float32)  # the last frame that went out
        self._plans: dict[int, Frames] = {}  # motion of planned turns that are not complete yet, by number

    def before(self, turn: TurnInput) -> Heard:
        """Check and normalise a turn; a planned one leaves no trace.

        :raises UserError: when its sizes are not the model's.
        """
        began = time.perf_counter()
        user = self._speech(turn.user_speech, "user_speech")
        agent = self._speech(turn.agent_speech, "agent_speech")
        motion = self._motion(turn.user_motion)
        speaking, agent = self._listen("agent", agent, keep=not turn.planned)
        if not turn.planned:
            _, user = self._listen("user", user, keep=True)
        done = None if turn.planned else self._plans.pop(turn.number, None)
        return Heard(turn, user, agent, motion, speaking, done, time.perf_counter() - began)

    def after(self, heard: Heard, motion: Frames, model_seconds: float) -> TurnMotion:
        """Join the model's motion to what went out before, stamp it, and let nothing out that is not finite."""
        began = time.perf_counter()
        motion = np.asarray(motion, dtype=np.float32)
        if not np.isfinite(motion).all():
            # The head stays where it is; what the network made of this turn nobody can tell.
            self.broken_turns += 1
            motion = np.repeat(self._rest[None], self.frames, axis=0)
        number = heard.turn.number
        motion = self._seams.apply(motion, follows=self._shown is not None and number == self._shown + 1)
        self._shown, self._rest = number, motion[-1].copy()
        if heard.turn.planned:
            self._plans[number] = motion
            self._plans.pop(number - MOST_PLANS, None)
        seams = time.perf_counter() - began
        return TurnMotion(
            number=number,
            stamp_ns=heard.turn.stamp_ns + self.delay_ns,
            rate=MOTION_RATE,
            frames=motion,
            speaking=heard.speaking.astype(np.uint8),
            timings={
                "normalise": heard.seconds,
                "model": model_seconds,
                "seams": seams,
                "total": heard.seconds + model_seconds + seams,
            },
        )

    def reset(self) -> None:
        """Forget both people and the motion."""
        for role, normaliser in self._normalisers.items():
            normaliser.reset()
            self._activity[role].reset()
        self._seams.reset()
        self._shown = None
        self._rest[:] = 0.0
        self._plans.clear()

    def state_dict(self) -> State:
        """Everything learned, fit for ``np.savez``."""
        plans = list(self._plans.values())
        state: State = {
            "shown": np.array(-1 if self._shown is None else self._shown),
            "rest": self._rest.copy(),
            "planned": np.array(list(self._plans), dtype=np.int64),
            "plans": np.stack(plans) if plans else np.zeros((0, self.frames, MOTION_SIZE), dtype=np.float32),
        }
        for role, normaliser in self._normalisers.items():
            state |= _under(f"normaliser/{role}", normaliser.state_dict())
            state |= _under(f"activity/{role}", self._activity[role].state_dict())
        return state | _under("seams", self._seams.state_dict())

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where :meth:`state_dict` was taken.

        :raises UserError: when the state is of another kind of pipeline.
        """
        try:
            for role, normaliser in self._normalisers.items():
                normaliser.load_state_dict(_within(f"normaliser/{role}", state))
                self._activity[role].load_state_dict(_within(f"activity/{role}", state))
            self._seams.load_state_dict(_within("seams", state))
            shown = int(state["shown"])
            self._shown = None if shown < 0 else shown
            self._rest = np.asarray(state["rest"], dtype=np.float32).reshape(MOTION_SIZE).copy()
            plans = np.asarray(state["plans"], dtype=np.float32).reshape(-1, self.frames, MOTION_SIZE)
            self._plans = dict(zip((int(number) for number in state["planned"]), plans, strict=True))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"saved pipeline state does not fit these options ({error}): start afresh") from error

    def _listen(self, role: str, speech: Frames, keep: bool) -> tuple[NDArray[np.bool_], Frames]:
        detector = self._activity[role]
        before = detector.state_dict()
        active = detector.process(speech)
        normalised = self._normalisers[role].apply(speech, active, keep=keep)
        if not keep:
            detector.load_state_dict(before)
        return active, normalised

    def _speech(self, speech: Frames, name: str) -> Frames:
        if speech.shape != (self.samples,):
            raise UserError(f"{name} has shape {speech.shape}, but a turn of this model has {self.samples} samples")
        if np.isfinite(speech).all():
            return speech
        return np.nan_to_num(speech, nan=0.0, posinf=0.0, neginf=0.0)

    def _motion(self, motion: Frames | None) -> Frames | None:
        if motion is None:
            return None
        if motion.shape != (self.frames, MOTION_SIZE):
            raise UserError(
                f"user_motion has shape {motion.shape}, but a turn of this model has {(self.frames, MOTION_SIZE)}"
            )
        try:
            checked, _ = check_frames(motion)
        except RejectedError:
            return None
        return checked if np.isfinite(checked).any() else None


class Pipeline:
    """One conversation: turns in, motion out.

    :param model: a :class:`timar_ros.model.Timar`.
    :param options: see :class:`PipelineOptions`.
    :param user_clip: the user's whole recording at 16 kHz, for ``normalising="clip"``; ``agent_clip`` likewise.
    :param talk: the conversation to use; default: one made from the model and the options.
    :raises UserError: on options that do not fit the model.
    """

    def __init__(
        self,
        model: Timar | None,
        options: PipelineOptions | None = None,
        *,
        user_clip: Frames | None = None,
        agent_clip: Frames | None = None,
        talk: Talk | None = None,
        turn_seconds: float | None = None,
    ) -> None:
        self.options = options or PipelineOptions()
        if talk is None:
            assert model is not None
            from timar_ros.streaming.conversation import Conversation

            talk = Conversation(
                model, seed=self.options.seed, engine=self.options.engine, **self.options.conversation_arguments()
            )
        if turn_seconds is None:
            assert model is not None
            turn_seconds = model.config.turn_seconds
        self.model = model
        self.turn_seconds = turn_seconds
        self._talk = talk
        self._stages = Stages(self.options, turn_seconds, user_clip, agent_clip)

    @property
    def delay_ns(self) -> int:
        """The playback delay [ns]."""
        return self._stages.delay_ns

    @property
    def broken_turns(self) -> int:
        """Turns for which the model gave values that are not finite."""
        return self._stages.broken_turns

    def process(self, turn: TurnInput) -> TurnMotion | None:
        """Motion for a turn; None where it gets none.

        Reactive: complete turns get motion. Anticipatory: planned turns do, and complete ones only become history.

        :raises UserError: when the turn's sizes are not the model's.
        """
        anticipatory = self.options.mode == "anticipatory"
        if turn.planned and not anticipatory:
            return None
        heard = self._stages.before(turn)
        began = time.perf_counter()
        if turn.planned:
            motion = self._talk.plan(heard.agent_speech, number=turn.number)
        elif anticipatory:
            self._talk.observe(heard.user_speech, heard.agent_speech, heard.user_motion, heard.done, number=turn.number)
            return None
        else:
            motion = self._talk.step(heard.user_speech, heard.agent_speech, heard.user_motion, number=turn.number)
        return self._stages.after(heard, motion, time.perf_counter() - began)

    def skip(self, turn: TurnInput) -> None:
        """A turn that came too late for motion: it costs nothing, but what it says of the speakers' levels counts."""
        if not turn.planned:
            self._stages.before(turn)

    def idle(self) -> None:
        """Work that need not be done between a turn's end and its motion; best called right after publishing."""
        self._talk.prepare()

    def check_style(self, *, guidance: float | None = None, temperature: float | None = None) -> None:
        """Whether :meth:`set_style` would take these.

        :raises UserError: as PipelineOptions.
        """
        _restyled(self.options, guidance, temperature)

    def set_style(self, *, guidance: float | None = None, temperature: float | None = None) -> None:
        """Change sampling from the next turn on.

        :raises UserError: as PipelineOptions.
        """
        self.options = _restyled(self.options, guidance, temperature)
        batch = getattr(self._talk, "batch", None)
        if batch is not None:
            batch.options = _restyled(batch.options, guidance, temperature)

    def reset(self) -> None:
        """A new partner: forget everything that was heard, seen and done."""
        self._talk.reset()
        self._stages.reset()

    def state_dict(self) -> State:
        """The whole conversation as plain arrays, fit for ``np.savez``: a node that restarts goes on where it was."""
        return _under("talk", self._talk.state_dict()) | _under("stages", self._stages.state_dict())

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where :meth:`state_dict` was taken.

        :raises UserError: when it is of another model or other options.
        """
        self._talk.load_state_dict(_within("talk", state))
        self._stages.load_state_dict(_within("stages", state))


class PipelineBatch:
    """Several conversations on one model, a pass of the network for all that have a turn.

    A conversation's motion does not depend on who shares the batch.

    :param conversations: how many.
    """

    def __init__(self, model: Timar, options: PipelineOptions, conversations: int) -> None:
        from timar_ros.streaming.batch import ConversationBatch

        self.options = options
        self.model = model
        self._batch = ConversationBatch(
            model, conversations, seed=options.seed, engine=options.engine, **options.conversation_arguments()
        )
        self._stages = [Stages(options, model.config.turn_seconds) for _ in range(conversations)]

    def __len__(self) -> int:
        return len(self._stages)

    def process(self, turns: Sequence[TurnInput | None]) -> list[TurnMotion | None]:
        """Motion for each conversation's turn, as :meth:`Pipeline.process`; None in, None out."""
        from timar_ros.streaming.batch import TurnData

        anticipatory = self.options.mode == "anticipatory"
        heard = [
            None if turn is None or (turn.planned and not anticipatory) else stages.before(turn)
            for stages, turn in zip(self._stages, turns, strict=True)
        ]
        data = [
            None
            if h is None
            else TurnData(
                None if h.turn.planned else h.user_speech,
                h.agent_speech,
                h.user_motion,
                number=h.turn.number,
                motion=h.done,
            )
            for h in heard
        ]
        planned = [h is not None and h.turn.planned for h in heard]
        complete = [None if p else d for p, d in zip(planned, data, strict=True)]
        began = time.perf_counter()
        motions: list[Frames | None] = [None] * len(self)
        if anticipatory:
            self._batch.observe(complete)
            plans = [d if p else None for p, d in zip(planned, data, strict=True)]
            if any(planned):
                motions = self._batch.plan(plans)
        else:
            motions = self._batch.step(complete)
        seconds = time.perf_counter() - began
        return [
            None if h is None or motion is None else stages.after(h, motion, seconds)
            for stages, h, motion in zip(self._stages, heard, motions, strict=True)
        ]

    def skip(self, row: int, turn: TurnInput) -> None:
        """As :meth:`Pipeline.skip`, for one conversation."""
        if not turn.planned:
            self._stages[row].before(turn)

    def idle(self) -> None:
        """As :meth:`Pipeline.idle`, for all."""
        self._batch.prepare()

    def check_style(self, *, guidance: float | None = None, temperature: float | None = None) -> None:
        """As :meth:`Pipeline.check_style`."""
        _restyled(self.options, guidance, temperature)

    def set_style(self, *, guidance: float | None = None, temperature: float | None = None) -> None:
        """As :meth:`Pipeline.set_style`, for all."""
        self.options = _restyled(self.options, guidance, temperature)
        self._batch.options = _restyled(self._batch.options, guidance, temperature)

    def reset(self, row: int | None = None) -> None:
        """Forget one conversation, or all."""
        self._batch.reset(row)
        for stages in self._stages if row is None else [self._stages[row]]:
            stages.reset()

    def state_dict(self, row: int) -> State:
        """As :meth:`Pipeline.state_dict`, for one conversation; each takes up the other's."""
        return _under("talk", self._batch.state_dict(row)) | _under("stages", self._stages[row].state_dict())

    def load_state_dict(self, row: int, state: Mapping[str, NDArray[Any]]) -> None:
        """As :meth:`Pipeline.load_state_dict`, for one conversation."""
        self._batch.load_state_dict(row, _within("talk", state))
        self._stages[row].load_state_dict(_within("stages", state))


def _restyled(options: Options, guidance: float | None, temperature: float | None) -> Options:
    """The options with what is given changed, checked again where they check themselves."""
    changes = {"guidance": guidance, "temperature": temperature}
    return replace(options, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[type-var]


def _under(prefix: str, state: Mapping[str, NDArray[Any]]) -> State:
    return {f"{prefix}/{name}": value for name, value in state.items()}


def _within(prefix: str, state: Mapping[str, NDArray[Any]]) -> State:
    return {name.removeprefix(f"{prefix}/"): value for name, value in state.items() if name.startswith(f"{prefix}/")}
