"""From turns to motion: normalising, the conversation, joined seams, who speaks; the same live, offline and in replay.

The nodes, ``generate`` and replays of bags all run this object, so that what a robot did live can be computed again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.streaming.activity import ActivityDetector
from timar_ros.streaming.normalise import make_normaliser
from timar_ros.streaming.options import PipelineOptions
from timar_ros.streaming.seams import Inertialiser
from timar_ros.streaming.turn_checks import RejectedError, check_frames
from timar_ros.streaming.turn_types import TurnInput

if TYPE_CHECKING:
    from timar_ros.model import Timar
    from timar_ros.streaming.batch import ConversationBatch
    from timar_ros.streaming.rolling import Hop, RollingBatch

Frames = NDArray[np.float32]
State = dict[str, NDArray[Any]]


@dataclass
class TurnMotion:
    """The agent's motion for one turn."""

    number: int
    """The turn's."""
    stamp_ns: int
    """When the first frame is to be shown [ns]: the turn's stamp and the playback delay."""
    about_ns: int
    """When that is said which the first frame goes with [ns], by the input's stamps."""
    rate: float
    """Frames a second [Hz]."""
    frames: Frames
    """[F, 56] in TIMAR order, always finite."""
    speaking: NDArray[np.uint8]
    """[F], 1 while the agent speaks."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage took, and ``total``."""


@dataclass
class Heard:
    """A turn made ready for the model."""

    turn: TurnInput
    user_speech: Frames
    agent_speech: Frames
    user_motion: Frames | None
    speaking: NDArray[np.bool_]
    """Of the frames that motion is made for."""
    seconds: float
    agent_ahead: Frames | None = None
    """Rolling: the agent's speech after the hop."""


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
        step = options.step_seconds(turn_seconds)
        self.samples = round(step * MODEL_RATE)
        self.frames = round(step * MOTION_RATE)
        self._margin = round(options.hop_margin * MOTION_RATE)
        self.delay_ns = options.delay_ns(turn_seconds)
        self.broken_turns = 0
        self._normalisers = {
            "user": make_normaliser(options.normalising, user_clip),
            "agent": make_normaliser(options.normalising, agent_clip),
        }
        self._activity = {role: ActivityDetector() for role in self._normalisers}
        self._seams = Inertialiser(enabled=options.seams)
        self._shown: int | None = None  # number of the last turn that got motion
        self._rest = np.zeros(MOTION_SIZE, dtype=np.float32)  # the last frame that went out

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
        ahead = turn.agent_ahead
        if ahead is not None:
            activity, ahead = self._listen("agent", np.nan_to_num(ahead, posinf=0.0, neginf=0.0), keep=False)
            speaking = activity[self._margin : self._margin + self.frames]
        return Heard(turn, user, agent, motion, speaking, time.perf_counter() - began, ahead)

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
        seams = time.perf_counter() - began
        stamp_ns = heard.turn.stamp_ns + self.delay_ns
        return TurnMotion(
            number=number,
            stamp_ns=stamp_ns,
            about_ns=heard.turn.stamp_ns if heard.agent_ahead is None else stamp_ns,
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

    def state_dict(self) -> State:
        """Everything learned, fit for ``np.savez``."""
        state: State = {
            "shown": np.array(-1 if self._shown is None else self._shown),
            "rest": self._rest.copy(),
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
    """Turns in, motion out, for one conversation or several on one model: one pass of the network for all.

    Speech is raw audio: samples at 16 kHz in [-1, 1]. A conversation's motion does not depend on who shares the batch.

    :param model: a :class:`timar_ros.model.Timar`.
    :param options: see :class:`timar_ros.streaming.PipelineOptions`.
    :param conversations: how many conversations; each is a row, counted from 0.
    :param user_clip: the user's whole recording at 16 kHz, for ``normalising="clip"``; ``agent_clip`` likewise.
    :raises UserError: on options that do not fit the model.
    """

    def __init__(
        self,
        model: Timar,
        options: PipelineOptions | None = None,
        conversations: int = 1,
        *,
        user_clip: Frames | None = None,
        agent_clip: Frames | None = None,
    ) -> None:
        from timar_ros.streaming.batch import ConversationBatch

        self.model = model
        self.options = options or PipelineOptions()
        self.turn_seconds = model.config.turn_seconds
        self._stages = [Stages(self.options, self.turn_seconds, user_clip, agent_clip) for _ in range(conversations)]
        self._rolling: RollingBatch | None = None
        if self.options.mode == "rolling":
            from timar_ros.streaming.rolling import RollingBatch

            self._rolling = RollingBatch(
                model,
                conversations,
                hop_frames=round(self.options.hop * MOTION_RATE),
                margin_frames=round(self.options.hop_margin * MOTION_RATE),
                seed=self.options.seed,
                options=self.options,
            )
            self._batch: ConversationBatch | RollingBatch = self._rolling
            return
        self._batch = ConversationBatch(model, conversations, self.options, seed=self.options.seed)

    def __len__(self) -> int:
        return len(self._stages)

    @property
    def _turns(self) -> ConversationBatch:
        """The conversations of a mode that is not rolling."""
        return cast("ConversationBatch", self._batch)

    @property
    def step_seconds(self) -> float:
        """How much of the conversation one step takes [s]: a turn, or in rolling mode a hop."""
        return self.options.step_seconds(self.turn_seconds)

    @property
    def delay_ns(self) -> int:
        """The playback delay [ns]."""
        return self.options.delay_ns(self.turn_seconds)

    @property
    def broken_turns(self) -> int:
        """Turns for which the model gave values that are not finite."""
        return sum(stages.broken_turns for stages in self._stages)

    def step(self, turn: TurnInput) -> TurnMotion | None:
        """Motion for a turn of the only conversation; None where it gets none, see :meth:`process`."""
        return self.process([turn])[0]

    def process(self, turns: Sequence[TurnInput | None]) -> list[TurnMotion | None]:
        """Motion for each conversation's turn; None where there is no turn, or where it gets no motion.

        Reactive: complete turns get motion. Anticipatory: planned turns do, and complete ones only become history.
        Rolling: a turn here is a hop, and each gets motion.

        :raises UserError: when a turn's sizes are not the model's.
        """
        anticipatory = self.options.mode == "anticipatory"
        heard = [
            None if turn is None or (turn.planned and not anticipatory) else stages.before(turn)
            for stages, turn in zip(self._stages, turns, strict=True)
        ]
        began = time.perf_counter()
        motions = self._rolled(heard) if self._rolling is not None else self._turned(heard)
        seconds = time.perf_counter() - began
        answers: list[TurnMotion | None] = [None] * len(self)
        for row, (each, motion) in enumerate(zip(heard, motions, strict=True)):
            if each is None or motion is None:
                continue
            answers[row] = answer = self._stages[row].after(each, motion, seconds)
            if each.turn.planned:
                self._turns.amend_plan(row, answer.number, answer.frames)
        return answers

    def _rolled(self, heard: Sequence[Heard | None]) -> list[Frames | None]:
        """What the hops of all conversations show."""
        assert self._rolling is not None
        return self._rolling.step([None if each is None else _hop(each) for each in heard])

    def _turned(self, heard: Sequence[Heard | None]) -> list[Frames | None]:
        """The motion of turns, planned or complete."""
        from timar_ros.streaming.batch import TurnData

        planned: list[TurnData | None] = [None] * len(self)
        complete: list[TurnData | None] = [None] * len(self)
        for row, each in enumerate(heard):
            if each is not None and each.turn.planned:
                planned[row] = TurnData(None, each.agent_speech, number=each.turn.number)
            elif each is not None:
                complete[row] = TurnData(each.user_speech, each.agent_speech, each.user_motion, number=each.turn.number)
        if self.options.mode != "anticipatory":
            return self._turns.step(complete)
        self._turns.observe(complete)
        return self._turns.plan(planned)

    def skip(self, turn: TurnInput, row: int = 0) -> None:
        """A turn that came too late for motion: it costs nothing, but what it says of the speakers' levels counts."""
        if turn.planned:
            return
        heard = self._stages[row].before(turn)
        if self._rolling is not None:
            self._rolling.miss(row, _hop(heard))

    def idle(self) -> None:
        """Work that need not be done between a turn's end and its motion; best called right after publishing."""
        self._batch.prepare()

    def check_style(self, *, guidance: float | None = None, temperature: float | None = None) -> None:
        """Whether :meth:`set_style` would take these.

        :raises UserError: as PipelineOptions.
        """
        self._restyled(guidance, temperature)

    def set_style(self, *, guidance: float | None = None, temperature: float | None = None) -> None:
        """Change sampling from the next turn on, for all conversations.

        :raises UserError: as PipelineOptions.
        """
        self.options = self._batch.options = self._restyled(guidance, temperature)

    def _restyled(self, guidance: float | None, temperature: float | None) -> PipelineOptions:
        changes = {"guidance": guidance, "temperature": temperature}
        return replace(self.options, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]

    def reset(self, row: int | None = None) -> None:
        """A new partner: forget everything that was heard, seen and done in one conversation, or in all."""
        self._batch.reset(row)
        for stages in self._stages if row is None else [self._stages[row]]:
            stages.reset()

    def state_dict(self, row: int = 0) -> State:
        """A whole conversation as plain arrays, fit for ``np.savez``: a node that restarts goes on where it was."""
        return _under("talk", self._batch.state_dict(row)) | _under("stages", self._stages[row].state_dict())

    def load_state_dict(self, state: Mapping[str, NDArray[Any]], row: int = 0) -> None:
        """Go on where :meth:`state_dict` was taken.

        :raises UserError: when it is of another model or other options.
        """
        self._batch.load_state_dict(row, _within("talk", state))
        self._stages[row].load_state_dict(_within("stages", state))


def _hop(heard: Heard) -> Hop:
    from timar_ros.streaming.rolling import Hop

    turn = heard.turn
    return Hop(heard.user_speech, heard.agent_speech, heard.user_motion, heard.agent_ahead, turn.number)


def _under(prefix: str, state: Mapping[str, NDArray[Any]]) -> State:
    return {f"{prefix}/{name}": value for name, value in state.items()}


def _within(prefix: str, state: Mapping[str, NDArray[Any]]) -> State:
    return {name.removeprefix(f"{prefix}/"): value for name, value in state.items() if name.startswith(f"{prefix}/")}
