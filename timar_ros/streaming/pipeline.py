"""From turns to motion: normalization, the network, seams, voice activity; the same live, offline and in replay.

The nodes, ``generate`` and replays of bags all run this object, so that a live robot's motion can be computed again.
"""

from __future__ import annotations

import math
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
from timar_ros.streaming.partner_amplitude import PartnerAmplitude
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.seams import Inertialiser
from timar_ros.streaming.turns.turn_checks import RejectedError, check_frames
from timar_ros.streaming.turns.turn_types import TurnInput

if TYPE_CHECKING:
    from timar_ros.model import Timar
    from timar_ros.streaming.batch import ConversationBatch
    from timar_ros.streaming.rolling import Hop, RollingBatch

HOP_FADE = 2
"""Rolling: frames over which the face's offset from hop to hop fades out. A hop is short: a longer fade never ends."""

Frames = NDArray[np.float32]
State = dict[str, NDArray[Any]]


@dataclass
class TurnMotion:
    """The agent's motion for one turn."""

    number: int
    """The turn's number."""
    stamp_ns: int
    """Time at which to show the first frame [ns]: the turn's stamp plus the playback delay."""
    about_ns: int
    """Time of the speech that the first frame belongs to [ns], by the input's stamps."""
    rate: float
    """Frames a second [Hz]."""
    frames: Frames
    """[F, 56] in TIMAR order, always finite."""
    speaking: NDArray[np.uint8]
    """[F], 1 while the agent speaks."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage took, and ``total``."""
    from_plan: bool = False
    """Rolling mode: the hop came too late, and an earlier hop planned these frames."""


@dataclass
class Heard:
    """A turn prepared for the model."""

    turn: TurnInput
    user_speech: Frames
    agent_speech: Frames
    user_motion: Frames | None
    speaking: NDArray[np.bool_]
    """Whether the agent speaks, for each frame of the motion."""
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
        # Rolling turns overlap and share their noise, so that their faces hardly differ.
        rolling = options.mode == "rolling"
        self._seams = Inertialiser(enabled=options.seams, face_frames=HOP_FADE if rolling else None)
        self._shown: int | None = None  # number of the last turn that got motion
        self._rest = np.zeros(MOTION_SIZE, dtype=np.float32)  # the last output frame

    def before(self, turn: TurnInput) -> Heard:
        """Check and normalise a turn; a planned turn changes no state.

        :raises UserError: when its sizes are not the model's.
        """
        started = time.perf_counter()
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
        return Heard(turn, user, agent, motion, speaking, time.perf_counter() - started, ahead)

    def after(self, heard: Heard, motion: Frames, model_seconds: float) -> TurnMotion:
        """Join the model's motion to the previous motion and stamp it; values that are not finite never go out."""
        started = time.perf_counter()
        motion = np.asarray(motion, dtype=np.float32)
        if not np.isfinite(motion).all():
            # The head keeps its pose: the network's values for this turn are invalid.
            self.broken_turns += 1
            motion = np.repeat(self._rest[None], self.frames, axis=0)
        number = heard.turn.number
        motion = self._seams.apply(motion, follows=self._shown is not None and number == self._shown + 1)
        self._shown, self._rest = number, motion[-1].copy()
        seams = time.perf_counter() - started
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
        """The state of the stages, fit for ``np.savez``."""
        state: State = {
            "shown": np.array(-1 if self._shown is None else self._shown),
            "rest": self._rest.copy(),
        }
        for role, normaliser in self._normalisers.items():
            state |= _under(f"normaliser/{role}", normaliser.state_dict())
            state |= _under(f"activity/{role}", self._activity[role].state_dict())
        return state | _under("seams", self._seams.state_dict())

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Resume from a :meth:`state_dict`.

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

    Speech is raw audio: samples at 16 kHz in [-1, 1]. A conversation's motion does not depend on the others.

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
        self._partners: list[PartnerAmplitude] = []
        if self.options.follow_partner and model.config.head == "joint":
            average = math.exp(float(model.joint_style[0]))
            self._partners = [PartnerAmplitude(average) for _ in range(conversations)]
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
        """Motion for a turn of the only conversation; None if the turn gets no motion, see :meth:`process`."""
        return self.process([turn])[0]

    def process(self, turns: Sequence[TurnInput | None]) -> list[TurnMotion | None]:
        """Motion for each conversation's turn; None without a turn, or for a turn that gets no motion.

        Reactive: complete turns get motion. Anticipatory: planned turns do, and complete ones only become history.
        Rolling: a turn here is a hop, and each gets motion.

        :raises UserError: when a turn's sizes are not the model's.
        """
        anticipatory = self.options.mode == "anticipatory"
        heard = [
            None if turn is None or (turn.planned and not anticipatory) else stages.before(turn)
            for stages, turn in zip(self._stages, turns, strict=True)
        ]
        self._follow_partners(heard)
        started = time.perf_counter()
        motions = self._rolled(heard) if self._rolling is not None else self._turned(heard)
        seconds = time.perf_counter() - started
        answers: list[TurnMotion | None] = [None] * len(self)
        for row, (each, motion) in enumerate(zip(heard, motions, strict=True)):
            if each is None or motion is None:
                continue
            answers[row] = answer = self._stages[row].after(each, motion, seconds)
            if self._rolling is not None:
                self._rolling.amend(row, answer.frames)
            elif each.turn.planned:
                self._turns.amend_plan(row, answer.number, answer.frames)
        return answers

    def _follow_partners(self, heard: Sequence[Heard | None]) -> None:
        """Set each conversation's amplitude by how much its partner's head moves."""
        for row, (partner, each) in enumerate(zip(self._partners, heard, strict=False)):
            if each is None or each.turn.planned:
                continue
            amplitude = partner.push(each.user_motion)
            if self._rolling is None:
                self._turns.amplitudes[row] = amplitude
            else:
                self._rolling.set_amplitude(row, amplitude)

    def _rolled(self, heard: Sequence[Heard | None]) -> list[Frames | None]:
        """The motion for the hops of all conversations."""
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

    def skip(self, turn: TurnInput, row: int = 0) -> TurnMotion | None:
        """Skip the network for a turn that came too late; the turn still updates the speakers' levels.

        :returns: rolling mode: an earlier hop's plan for this hop, if there is one; otherwise None.
        """
        if turn.planned:
            return None
        heard = self._stages[row].before(turn)
        motion = None if self._rolling is None else self._rolling.miss(row, _hop(heard))
        if self._rolling is None or motion is None:
            return None
        answer = replace(self._stages[row].after(heard, motion, 0.0), from_plan=True)
        self._rolling.amend(row, answer.frames)
        return answer

    def idle(self) -> None:
        """Idle-time work, which a turn's motion need not wait for; best called right after publishing."""
        self._batch.prepare()

    def check_style(self, **style: float) -> None:
        """Check values for :meth:`set_style` without setting them.

        :raises UserError: as :meth:`set_style`.
        """
        self._restyled(style)

    def set_style(self, **style: float) -> None:
        """Change ``guidance``, ``temperature`` or ``liveliness`` from the next turn on, for all conversations.

        :raises UserError: as PipelineOptions, or for liveliness if the model does not support it.
        """
        self.options = self._batch.options = self._restyled(style)

    def _restyled(self, style: Mapping[str, float]) -> PipelineOptions:
        if "liveliness" in style and self.model.config.head != "joint":
            raise UserError(f"liveliness: '{self.model.name}' has no joint head; use the retarget node's gains")
        changes: dict[str, Any] = dict(style)
        return replace(self.options, **changes)

    def reset(self, row: int | None = None) -> None:
        """Forget the history of one conversation, or of all, for a new partner."""
        self._batch.reset(row)
        for stages in self._stages if row is None else [self._stages[row]]:
            stages.reset()
        for partner in self._partners if row is None else self._partners[row : row + 1]:
            partner.reset()

    def state_dict(self, row: int = 0) -> State:
        """A whole conversation as plain arrays, fit for ``np.savez``: a restarted node resumes from it."""
        state = _under("talk", self._batch.state_dict(row)) | _under("stages", self._stages[row].state_dict())
        return state | (_under("partner", self._partners[row].state_dict()) if self._partners else {})

    def load_state_dict(self, state: Mapping[str, NDArray[Any]], row: int = 0) -> None:
        """Resume from a :meth:`state_dict`.

        :raises UserError: when the state is of another model or other options.
        """
        self._batch.load_state_dict(row, _within("talk", state))
        self._stages[row].load_state_dict(_within("stages", state))
        if self._partners and "partner/poses" in state:
            self._partners[row].load_state_dict(_within("partner", state))


def _hop(heard: Heard) -> Hop:
    from timar_ros.streaming.rolling import Hop

    turn = heard.turn
    return Hop(heard.user_speech, heard.agent_speech, heard.user_motion, heard.agent_ahead, turn.number)


def _under(prefix: str, state: Mapping[str, NDArray[Any]]) -> State:
    return {f"{prefix}/{name}": value for name, value in state.items()}


def _within(prefix: str, state: Mapping[str, NDArray[Any]]) -> State:
    return {name.removeprefix(f"{prefix}/"): value for name, value in state.items() if name.startswith(f"{prefix}/")}
