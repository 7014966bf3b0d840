"""Runs a bag through the whole pipeline again, without ROS, as fast as the machine allows.

Replay uses the nodes' TurnBuilder, Pipeline and Retargeter: with the same seed, dtype and device the FLAME motion
equals the robot's live motion, bit for bit.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_clock import LONGEST_PAUSE
from timar_ros.bags.bag_files import TOPICS, BagReader, BagWriter
from timar_ros.bags.bag_foreign import AudioEvent, Event, Inputs
from timar_ros.data.motion_files import write_motion
from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.retarget.gaze import is_direction
from timar_ros.retarget.retarget_options import RetargetOptions
from timar_ros.streaming.pipeline import Pipeline, TurnMotion
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.stream_info import info_of, options_from
from timar_ros.streaming.turns.turn_builder import TurnBuilder
from timar_ros.streaming.turns.turn_types import TurnInput

if TYPE_CHECKING:
    from timar_ros.model import Timar
    from timar_ros.retarget.profile import RobotProfile

Floats = npt.NDArray[np.float32]
Point = tuple[float, float, float]
Source = Literal["auto", "turns", "audio"]


@dataclasses.dataclass
class ReplayResult:
    """The output of a replay, and its comparison with the bag's motion."""

    bag: Path
    motion: Path
    turns: int
    dropped: int
    seconds: float
    took: float
    source: str
    compared: int = 0
    """Number of turns whose live motion is in the bag."""
    identical: int = 0
    """Number of compared turns with identical bytes."""
    max_abs_error: float = 0.0


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The run's settings from a bag's latched messages; empty where the messages lack them."""

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
    """The live pipeline's settings at the end of the recording, from the bag's stream_info and retarget_info.

    Bags of earlier versions, and bags without these topics, lack options, which then have their defaults.
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
    """Time of arrival and turn of each Turn message: the input of the robot's inference.

    :param samples: samples of one pipeline step.
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
    """The agent's speech after a hop; None where it was not known, and in bags of versions without hops."""
    ahead = np.asarray(getattr(message, "agent_ahead", ()), np.float32)
    return ahead if len(ahead) else None


def turns_of_events(
    events: Iterator[Event], turn_seconds: float, options: PipelineOptions, ahead: Mapping[int, bool] | None = None
) -> Iterator[tuple[int, TurnInput]]:
    """Turns cut from audio and motion in their order of arrival, each with its time of completion.

    :param ahead: rolling mode: see :meth:`Inputs.streams_ahead`.
    """
    builder = TurnBuilder.of(options, turn_seconds, max_ahead=120.0, streams_ahead=ahead)
    arrived = 0
    user_heard = options.mode != "rolling"
    for event in events:
        arrived, first = event.arrived_ns, not arrived
        if first:
            builder.advance(arrived)  # this clock decides whether the first utterance is ahead
        if isinstance(event, AudioEvent):
            if event.role == "user" and event.samples.ndim == 2 and options.channel >= event.samples.shape[1]:
                count = event.samples.shape[1]
                raise UserError(f"channel {options.channel} is wanted, but the user's sound has {count} (from 0 on)")
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
        # Rolling: speech ahead of its time does not show the time. A bag's order of two topics is not exact, so the
        # conversation begins with the user's first sound, not with its time of arrival in the bag.
        user_heard = user_heard or (isinstance(event, AudioEvent) and event.role == "user")
        if user_heard:
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

    :param source: "audio" cuts new turns from the bag's audio and user motion; "turns" takes the recorded turns, and
        skips those that the live run dropped; "auto" takes turns if they fit, else audio.
    :param mapping: topics of a foreign bag, see :mod:`timar_ros.bags.bag_foreign`.
    :param robot: the robot whose joints are also computed.
    :param recorded: the robot's settings; default: the bag's.
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
        self.from_plan: set[int] = set()  # hops that the live run dropped and filled from an earlier hop's plan
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
        messages = [message for _, _, message in self.bag.messages({topic})]
        self.from_plan = {int(m.turn) for m in messages if getattr(m, "from_plan", False)}
        return {int(m.turn): bag_messages.frames_of(m) for m in messages}

    def run(self) -> ReplayResult:
        """Run the replay."""
        started = time.perf_counter()
        with BagWriter(self.out / "bag") as writer:
            for name in ("user/audio", "agent/audio", "user/motion", "turns", "agent/motion", "stream_info"):
                writer.add_topic(f"/{name}", TOPICS[name])
            if self.robot is not None:
                for name in ("joint_states", "retarget_info", "gaze/target"):
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
        return self._result(time.perf_counter() - started)

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
            turns = turns_of_events(events, turn_seconds, self.options, self.inputs.streams_ahead())
        newest = max(self.live, default=-1)
        for arrived, turn in turns:
            if not turn.planned:
                self.turns += 1
                self._write_turn(writer, arrived, turn)
            # Only recorded turns have the live run's numbers.
            dropped = self.turns_topic is not None and self.live and turn.number <= newest
            if dropped and (turn.number not in self.live or turn.number in self.from_plan):
                planned = self.pipeline.skip(turn)
                motion = planned if turn.number in self.from_plan else None
                self.dropped += not turn.planned
            else:
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
                    from_plan=motion.from_plan,
                )
                writer.write("/agent/motion", arrived + took, message)
            self.pipeline.idle()
            if self.progress is not None:
                self.progress((arrived - self.bag.start_ns) * 1e-9, self.bag.seconds)

    def _write_turn(self, writer: BagWriter, arrived: int, turn: TurnInput) -> None:
        writer.write("/turns", arrived, bag_messages.turn_message(writer.types, turn, MOTION_RATE))

    def _retarget(self, writer: BagWriter, robot: RobotProfile) -> None:
        """Write commanded joints, computed from the motion known at each time."""
        from timar_ros.retarget.retargeter import Retargeter

        rate, options = self.recorded.rate, self.recorded.retarget
        info = bag_messages.retarget_info(writer.types, self.bag.start_ns, robot.name, rate, options)
        writer.write("/retarget_info", self.bag.start_ns, info)
        retargeter = Retargeter(robot, rate, options)
        # Time from motion's arrival to its showing: the delay, minus the turn that had to be heard first.
        heard = 0.0 if self.options.mode == "anticipatory" else self._seconds
        ahead = max(round(0.1e9), self.pipeline.delay_ns - round(heard * 1e9))
        parts, looks = [], self._looks(robot, options)

        for stamp_ns, point in looks:
            frame = options.gaze_frame or robot.pose_frame
            writer.write("/gaze/target", stamp_ns, bag_messages.point(writer.types, stamp_ns, frame, point))

        def advance(until_ns: int) -> None:
            while looks and looks[0][0] <= until_ns:
                stamp_ns, point = looks.popleft()
                parts.append(retargeter.advance(stamp_ns))
                retargeter.look(stamp_ns, point)
            parts.append(retargeter.advance(until_ns))

        for motion in self.motions:
            advance(motion.stamp_ns - ahead)
            retargeter.push(motion.stamp_ns, motion.rate, motion.frames, motion.speaking)
        last = self.motions[-1]
        advance(last.stamp_ns + round(len(last.frames) / last.rate * 1e9))
        for part in parts:
            for row, at in enumerate(part.time_ns):
                state = bag_messages.joint_state(
                    writer.types, int(at), part.names, part.position[row], part.velocity[row]
                )
                writer.write("/joint_states", int(at), state)

    def _looks(self, robot: RobotProfile, options: RetargetOptions) -> deque[tuple[int, Point]]:
        """Times [ns] and points [m] to which the head was to turn: those that `retarget` takes."""
        topic = self.bag.find("gaze/target", TOPICS["gaze/target"])
        found: deque[tuple[int, Point]] = deque()
        for _, arrived, message in self.bag.messages({topic}) if topic else ():
            point = float(message.point.x), float(message.point.y), float(message.point.z)
            frame = message.header.frame_id.lstrip("/")
            if frame in ("", options.gaze_frame or robot.pose_frame) and is_direction(point, options.gaze_origin):
                found.append((bag_messages.stamp_ns(message.header.stamp) or arrived, point))
        return found

    def _film(self) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """All motion on one time axis from the first turn; a turn without motion holds the last pose."""
        first = self.motions[0].stamp_ns
        starts = [0]
        for before, motion in itertools.pairwise(self.motions):
            # Never go back, and limit a pause to a bag's longest: stamps must not decide the size of memory.
            after = starts[-1] + len(before.frames)
            wanted = round((motion.stamp_ns - first) * 25e-9)
            starts.append(min(max(wanted, starts[-1]), after + round(LONGEST_PAUSE * 25e-9)))
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
        pairs = [(replayed, live) for replayed, live in pairs if replayed.shape == live.shape]
        errors = [float(np.abs(replayed - live).max()) for replayed, live in pairs]
        return ReplayResult(
            bag=self.out / "bag",
            motion=self.out / "motion.npz",
            turns=self.turns,
            dropped=self.dropped,
            seconds=self.turns * self._seconds,
            took=took,
            source="recorded turns" if self.turns_topic is not None else "audio and user motion",
            compared=len(pairs),
            identical=sum(replayed.tobytes() == live.tobytes() for replayed, live in pairs),
            max_abs_error=max(errors, default=0.0),
        )


def _copied(events: Iterator[Event], writer: BagWriter) -> Iterator[Event]:
    """The same events; also writes each of them."""
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
