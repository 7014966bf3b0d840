"""A bag through the whole pipeline again, without ROS, as fast as the machine allows.

The same TurnBuilder, Pipeline and Retargeter that the nodes run: with the same seed, dtype and device the FLAME motion
is what the robot showed live, bit for bit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from timar_ros.data import bag_messages
from timar_ros.data.bag_foreign import AudioEvent, Event, Inputs
from timar_ros.data.bags import TOPICS, BagReader, BagWriter
from timar_ros.data.motion import write_motion
from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.retarget.options import RetargetOptions
from timar_ros.streaming.options import PipelineOptions
from timar_ros.streaming.pipeline import Pipeline, TurnMotion
from timar_ros.streaming.stream_info import info_of, options_from
from timar_ros.streaming.turn_types import TurnInput
from timar_ros.streaming.turns import TurnBuilder

if TYPE_CHECKING:
    from timar_ros.model import Timar
    from timar_ros.retarget.profile import RobotProfile

Floats = npt.NDArray[np.float32]
Source = Literal["auto", "turns", "audio"]


@dataclasses.dataclass
class ReplayResult:
    """What a replay made, and how it compares with what the bag holds."""

    bag: Path
    motion: Path
    turns: int
    dropped: int
    seconds: float
    took: float
    source: str
    compared: int = 0
    """Turns whose live motion is in the bag."""
    identical: int = 0
    """Of those, turns whose bytes are the same."""
    max_abs_error: float = 0.0


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What the latched messages of a bag say of the run that made it; empty where they say nothing."""

    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Keywords of PipelineOptions."""
    model: str = ""
    model_sha256: str = ""
    device: str = ""
    dtype: str = ""
    threads: int | None = None
    robot: str = ""
    """Profile of the robot that moved, by name or file."""
    rate: float = 100.0
    """Joint commands per second [Hz]."""
    retarget: RetargetOptions = dataclasses.field(default_factory=RetargetOptions)


def recorded_run(bag: BagReader) -> Recorded:
    """How the live pipeline was set when the recording ended, by the bag's stream_info and retarget_info.

    Bags of earlier versions, and bags without these topics, leave options out; those are then at their defaults.
    """
    info, moved = _last(bag, "stream_info"), _last(bag, "retarget_info")
    values: dict[str, Any] = {}
    if info is not None:
        values = {name: getattr(info, name) for name in ("model", "model_sha256", "device", "dtype")}
        values |= {"options": options_from(info), "threads": int(getattr(info, "threads", 0)) or None}
    if moved is not None:
        values |= {"robot": moved.robot, "rate": float(moved.rate), "retarget": bag_messages.retarget_options_of(moved)}
    return Recorded(**values)


def _last(bag: BagReader, name: str) -> Any:
    """The last message of a latched topic, or None."""
    topic = bag.find(name, TOPICS[name])
    messages = [] if topic is None else [message for _, _, message in bag.messages({topic})]
    return messages[-1] if messages else None


def turns_of_topic(bag: BagReader, topic: str, samples: int) -> Iterator[tuple[int, TurnInput]]:
    """Time of arrival and turn of each Turn message: what the robot's inference was given.

    :param samples: of what the pipeline takes at a step.
    :raises UserError: when a turn has another length.
    """
    for _, arrived, message in bag.messages({topic}):
        planned = int(message.phase) == 1
        agent = np.asarray(message.agent_speech, np.float32)
        user = np.zeros(len(agent), np.float32) if planned else np.asarray(message.user_speech, np.float32)
        if len(agent) != samples or len(user) != samples:
            raise UserError(
                f"{topic} has turns of {len(agent)} samples, but this model's have {samples}: use --input audio"
            )
        yield (
            arrived,
            TurnInput(
                number=int(message.number),
                stamp_ns=bag_messages.stamp_ns(message.header.stamp),
                duration=len(agent) / MODEL_RATE,
                user_speech=user,
                agent_speech=agent,
                user_motion=None if planned else bag_messages.user_motion_of(message),
                planned=planned,
                lost_user=int(message.lost_user_samples),
                lost_agent=int(message.lost_agent_samples),
                agent_ahead=_ahead_of(message),
            ),
        )


def _ahead_of(message: Any) -> Floats | None:
    """The agent's speech after a hop; None where it was not known, and in bags of versions that had no hops."""
    ahead = np.asarray(getattr(message, "agent_ahead", ()), np.float32)
    return ahead if len(ahead) else None


def speech_was_ahead(bag: BagReader) -> bool | None:
    """Rolling mode: whether all of the agent's speech was ahead, as the bag says; None: its stamps are to tell."""
    topic = bag.find("agent/voice_timing")
    delays = [] if topic is None else [float(message.delay) for _, _, message in bag.messages({topic})]
    return True if delays and not any(delays) else None


def turns_of_events(
    events: Iterator[Event], turn_seconds: float, options: PipelineOptions, speech_ahead: bool | None = None
) -> Iterator[tuple[int, TurnInput]]:
    """Turns cut from audio and motion in their order of arrival, each with the time at which it was complete.

    :param speech_ahead: rolling mode: see :func:`speech_was_ahead`.
    """
    ahead = speech_ahead if options.mode == "rolling" else None
    builder = TurnBuilder.of(options, turn_seconds, max_ahead=120.0, agent_ahead=ahead)
    arrived = 0
    begun = options.mode != "rolling"
    for event in events:
        arrived, first = event.arrived_ns, not arrived
        if first:
            builder.advance(arrived)  # by this clock the first utterance is ahead, or is not
        if isinstance(event, AudioEvent):
            builder.add_audio(
                event.role,
                event.stamp_ns,
                event.sample_index,
                event.rate,
                event.samples,
                stream_id=event.stream_id,
                end=event.end,
            )
        else:
            builder.add_motion(event.stamp_ns, event.rate, event.frames)
        # Rolling: speech ahead of its time shows no time. A bag's order of two topics is not exact, so the conversation
        # begins with the user's first sound, not with the moment at which the bag says that it must have come.
        begun = begun or (isinstance(event, AudioEvent) and event.role == "user")
        if begun:
            builder.advance(arrived)
        yield from ((arrived, turn) for turn in builder.pop())
    yield from ((arrived, turn) for turn in builder.finish())


def replay(
    bag: BagReader,
    model: Timar,
    options: PipelineOptions,
    out: str | Path,
    *,
    source: Source = "auto",
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    robot: RobotProfile | None = None,
    recorded: Recorded | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> ReplayResult:
    """Run the pipeline on a bag and write ``out/bag`` and ``out/motion.npz``.

    :param source: "audio" cuts turns anew from the bag's audio and user motion; "turns" takes the recorded turns, and
        skips those that the live run dropped; "auto" takes turns where they fit, else audio.
    :param mapping: topics of a foreign bag, see :mod:`timar_ros.data.bag_foreign`.
    :param robot: its joints are computed, too.
    :param recorded: how the robot is moved; default: as the bag says.
    :param progress: called with seconds done and seconds in all.
    :raises UserError: when the bag lacks what is needed.
    """
    return _Replay(bag, model, options, Path(out), source, mapping, robot, recorded, progress).run()


class _Replay:
    def __init__(
        self,
        bag: BagReader,
        model: Timar,
        options: PipelineOptions,
        out: Path,
        source: Source,
        mapping: Mapping[str, Mapping[str, Any]] | None,
        robot: RobotProfile | None,
        recorded: Recorded | None,
        progress: Callable[[float, float], None] | None,
    ) -> None:
        self.bag, self.model, self.options, self.out = bag, model, options, out
        self.progress, self.robot = progress, robot
        self.recorded = recorded_run(bag) if recorded is None else recorded
        self.pipeline = Pipeline(model, options)
        self.turns_topic = self._usable_turns(source, mapping)
        self.inputs = Inputs(bag, mapping) if self.turns_topic is None or not mapping else None
        self.live = self._live_motion()
        self.motions: list[TurnMotion] = []
        self.turns = self.dropped = 0

    def _usable_turns(self, source: Source, mapping: Any) -> str | None:
        topic = self.bag.find("turns", TOPICS["turns"])
        if source == "turns" and topic is None:
            raise UserError(f"{self.bag.path} has no topic 'turns': use --input audio")
        if source == "audio" or topic is None or (source == "auto" and mapping):
            return None
        phases = set()
        for _, _, message in self.bag.messages({topic}):
            phases.add(int(message.phase))
            fits = len(message.agent_speech) == self._samples
            if source == "auto" and not fits:
                return None
            if len(phases) == 2:
                break
        if source == "auto" and (1 in phases) != (self.options.mode == "anticipatory"):
            return None
        return topic

    def _live_motion(self) -> dict[int, Floats]:
        topic = self.bag.find("agent/motion", TOPICS["agent/motion"])
        if topic is None:
            return {}
        return {int(m.turn): bag_messages.frames_of(m) for _, _, m in self.bag.messages({topic})}

    def run(self) -> ReplayResult:
        """Do it."""
        began = time.perf_counter()
        with BagWriter(self.out / "bag") as writer:
            for name in ("user/audio", "agent/audio", "user/motion", "turns", "agent/motion", "stream_info"):
                writer.add_topic(f"/{name}", TOPICS[name])
            if self.robot is not None:
                for name in ("joint_states", "retarget_info"):
                    writer.add_topic(f"/{name}", TOPICS[name])
            writer.note("timar_replay_of", str(self.bag.path.name))
            self._announce(writer)
            self._work(writer)
            if not self.motions:
                raise UserError(
                    f"{self.bag.path} gave no turn: its audio is shorter than {self._seconds:.0f} s, or no numbers"
                )
            if self.robot is not None:
                self._retarget(writer, self.robot)
        frames, speaking = self._film()
        write_motion(self.out / "motion.npz", frames, speaking=speaking)
        return self._result(time.perf_counter() - began)

    @property
    def _seconds(self) -> float:
        return self.pipeline.step_seconds

    @property
    def _samples(self) -> int:
        return round(self._seconds * MODEL_RATE)

    def _announce(self, writer: BagWriter) -> None:
        info = bag_messages.stream_info(writer.types, self.bag.start_ns, **info_of(self.model, self.options))
        writer.write("/stream_info", self.bag.start_ns, info)

    def _work(self, writer: BagWriter) -> None:
        if self.turns_topic is not None:
            if self.inputs is not None:
                for event in self.inputs.events():
                    _write_event(writer, event)
            turns = turns_of_topic(self.bag, self.turns_topic, self._samples)
        else:
            assert self.inputs is not None
            events = _copied(self.inputs.events(), writer)
            turn_seconds = self.model.config.turn_seconds
            turns = turns_of_events(events, turn_seconds, self.options, speech_was_ahead(self.bag))
        newest = max(self.live, default=-1)
        for arrived, turn in turns:
            if not turn.planned:
                self.turns += 1
                self._write_turn(writer, arrived, turn)
            # Only recorded turns have the live run's numbers.
            dropped = self.turns_topic is not None and self.live and turn.number <= newest
            if dropped and turn.number not in self.live:
                self.pipeline.skip(turn)
                self.dropped += not turn.planned
                continue
            motion = self.pipeline.step(turn)
            if motion is not None:
                self.motions.append(motion)
                took = round(motion.timings.get("total", 0.0) * 1e9)
                message = bag_messages.flame_motion(
                    writer.types,
                    motion.stamp_ns,
                    motion.rate,
                    motion.frames,
                    turn=motion.number,
                    speaking=motion.speaking,
                )
                writer.write("/agent/motion", arrived + took, message)
            self.pipeline.idle()
            if self.progress is not None:
                self.progress((arrived - self.bag.start_ns) * 1e-9, self.bag.seconds)

    def _write_turn(self, writer: BagWriter, arrived: int, turn: TurnInput) -> None:
        writer.write("/turns", arrived, bag_messages.turn_message(writer.types, turn, MOTION_RATE))

    def _retarget(self, writer: BagWriter, robot: RobotProfile) -> None:
        """Joints as commanded, by what would have been known at each time."""
        from timar_ros.retarget.retargeter import Retargeter

        rate, options = self.recorded.rate, self.recorded.retarget
        info = bag_messages.retarget_info(writer.types, self.bag.start_ns, robot.name, rate, options)
        writer.write("/retarget_info", self.bag.start_ns, info)
        retargeter = Retargeter(robot, rate, options)
        # How far ahead of its showing motion comes: the delay, less the turn that had to be heard first.
        heard = 0.0 if self.options.mode == "anticipatory" else self._seconds
        ahead = max(round(0.1e9), self.pipeline.delay_ns - round(heard * 1e9))
        parts = []
        for motion in self.motions:
            parts.append(retargeter.advance(motion.stamp_ns - ahead))
            retargeter.push(motion.stamp_ns, motion.rate, motion.frames, motion.speaking)
        last = self.motions[-1]
        parts.append(retargeter.advance(last.stamp_ns + round(len(last.frames) / last.rate * 1e9)))
        for part in parts:
            for row, at in enumerate(part.time_ns):
                state = bag_messages.joint_state(
                    writer.types, int(at), part.names, part.position[row], part.velocity[row]
                )
                writer.write("/joint_states", int(at), state)

    def _film(self) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """All motion on one time axis from the first turn; a turn without motion holds the last pose."""
        first = self.motions[0].stamp_ns
        starts = [round((motion.stamp_ns - first) * 25e-9) for motion in self.motions]
        length = starts[-1] + len(self.motions[-1].frames)
        frames, speaking = np.zeros((length, MOTION_SIZE), np.float32), np.zeros(length, np.uint8)
        ends = [*starts[1:], length]
        for motion, start, end in zip(self.motions, starts, ends, strict=True):
            count = min(len(motion.frames), end - start)
            frames[start : start + count] = motion.frames[:count]
            frames[start + count : end] = motion.frames[-1]
            speaking[start : start + count] = motion.speaking[:count]
        return frames, speaking

    def _result(self, took: float) -> ReplayResult:
        pairs = [(m.frames, self.live[m.number]) for m in self.motions if m.number in self.live]
        pairs = [(made, live) for made, live in pairs if made.shape == live.shape]
        errors = [float(np.abs(made - live).max()) for made, live in pairs]
        return ReplayResult(
            bag=self.out / "bag",
            motion=self.out / "motion.npz",
            turns=self.turns,
            dropped=self.dropped,
            seconds=self.turns * self._seconds,
            took=took,
            source="recorded turns" if self.turns_topic is not None else "audio and user motion",
            compared=len(pairs),
            identical=sum(made.tobytes() == live.tobytes() for made, live in pairs),
            max_abs_error=max(errors, default=0.0),
        )


def _copied(events: Iterator[Event], writer: BagWriter) -> Iterator[Event]:
    """The same events, written on their way."""
    for event in events:
        _write_event(writer, event)
        yield event


def _write_event(writer: BagWriter, event: Event) -> None:
    if isinstance(event, AudioEvent):
        message = bag_messages.audio_chunk(
            writer.types,
            event.stamp_ns,
            event.sample_index,
            event.rate,
            event.samples,
            stream_id=event.stream_id,
            end=event.end,
        )
        writer.write(f"/{event.role}/audio", event.arrived_ns, message)
    else:
        message = bag_messages.flame_motion(writer.types, event.stamp_ns, event.rate, event.frames)
        writer.write("/user/motion", event.arrived_ns, message)
