"""A recorded conversation as arrays: a bag's data for reports and metrics, on one time axis.

The axis is the conversation's: 0 is the first sample of either speaker. The agent's motion, its delayed audio and the
robot's joints carry presentation stamps; the loader subtracts ``playback_delay``, so that related events have the same
time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import TOPICS, BagReader
from timar_ros.errors import UserError
from timar_ros.motion import MODEL_RATE, MOTION_RATE, MOTION_SIZE
from timar_ros.streaming.turns.turn_checks import MAX_RATE, MIN_RATE

LONGEST_HOURS = 24.0
"""Longest conversation [h]; stamps further apart are a clock step."""

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


@dataclasses.dataclass
class Motion:
    """A head's motion: frame times [T] in seconds, frames [T, 56] (NaN where not known), speaking [T] (255 unknown)."""

    time: Times
    frames: Floats
    speaking: npt.NDArray[np.uint8]

    def at_rate(self, seconds: float, rate: float = MOTION_RATE) -> Floats:
        """Frames on a steady grid from 0, [round(seconds * rate), 56]: the newest at each instant, NaN in gaps."""
        count = round(seconds * rate)
        grid = np.full((count, MOTION_SIZE), np.nan, np.float32)
        if len(self.time):
            wanted = np.arange(count) / rate
            newest = np.searchsorted(self.time, wanted + 0.5 / rate, side="right") - 1
            known = (newest >= 0) & (wanted - self.time[np.maximum(newest, 0)] < 1.5 / rate)
            grid[known] = self.frames[newest[known]]
        return grid


@dataclasses.dataclass
class TurnRow:
    """One turn of the recording; times in seconds, NaN for missing events."""

    number: int
    start: float
    duration: float
    heard: float
    """Time at which the Turn message was recorded."""
    moved: float
    """Time at which its motion was recorded; NaN: dropped."""
    lost_user: int
    lost_agent: int


@dataclasses.dataclass
class Joints:
    """Joint positions and velocities [T, J] over time [T]; velocity may be NaN."""

    names: list[str]
    time: Times
    position: npt.NDArray[np.float64]
    velocity: npt.NDArray[np.float64]


@dataclasses.dataclass
class Recording:
    """All data of one conversation. Absent streams are None (or empty)."""

    name: str
    path: Path
    origin_ns: int
    seconds: float
    playback_delay: float
    info: dict[str, Any]
    user_audio: Floats | None = None
    agent_audio: Floats | None = None
    user_motion: Motion | None = None
    agent_motion: Motion | None = None
    turns: list[TurnRow] = dataclasses.field(default_factory=list)
    joints: Joints | None = None
    commands: Joints | None = None
    diagnostics: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    """Remarks for the reader that are no faults."""
    description: str = ""
    """The robot's URDF, if it was recorded."""
    robot: str = ""
    """The robot's profile, by name or file, if retarget_info was recorded."""
    simulated: bool = False
    """Arrivals follow a simulated clock (``/clock``): they do not show real durations."""

    @property
    def dropped(self) -> int:
        """Number of turns that were heard but got no motion."""
        return sum(1 for turn in self.turns if np.isnan(turn.moved))

    def response_times(self) -> npt.NDArray[np.float64]:
        """Seconds from the arrival of each turn to the arrival of its motion, by the recorder's clock."""
        times = np.array([turn.moved - turn.heard for turn in self.turns])
        return times[np.isfinite(times)]


def find_bag(path: str | Path) -> Path:
    """The bag at a path: the path itself, or the bag inside a run's folder (``out/demo``).

    :raises UserError: when there is no bag, or more than one.
    """
    path = Path(path)
    if not path.is_dir() or (path / "metadata.yaml").exists() or any(path.glob("*.mcap")) or any(path.glob("*.db3")):
        return path
    inside = sorted({file.parent for kind in ("*/*.mcap", "*/*.db3", "*/metadata.yaml") for file in path.glob(kind)})
    if len(inside) == 1:
        return inside[0]
    if not inside:
        raise UserError(f"no bag in the folder {path}: give a bag, or the folder of a run that holds one")
    raise UserError(f"several bags in {path}: {', '.join(p.name for p in inside)}; name one of them")


def _name(path: Path) -> str:
    """A recording's name; for ``bag`` in a run's folder (of `timar demo` or `timar replay`) the run's name."""
    return path.parent.name if path.name == "bag" and (path.parent / "motion.npz").exists() else path.name


def load_recording(path: str | Path) -> Recording:
    """Read a bag of this package's topics (in any namespace) into arrays.

    :raises UserError: when the path is no bag, or the bag holds neither audio nor motion.
    """
    bag_path = find_bag(path)
    with BagReader(bag_path) as bag:
        return _Loader(bag, bag_path).load()


def recording_of_motion(
    motion: str | Path,
    user: str | Path | None = None,
    agent: str | Path | None = None,
    user_motion: str | Path | None = None,
) -> Recording:
    """A recording from the input and output files of `timar generate`.

    :param motion: the agent's motion (.npz in DualTalk's layout or .npy).
    :raises UserError: when a file cannot be read.
    """
    from timar_ros.data.audio_files import read_audio
    from timar_ros.data.motion_files import read_motion

    def track(path: str | Path) -> Motion:
        frames = read_motion(path)
        return Motion(np.arange(len(frames)) / MOTION_RATE, frames, np.full(len(frames), 255, np.uint8))

    agent_track = track(motion)
    return Recording(
        name=Path(motion).stem,
        path=Path(motion),
        origin_ns=0,
        seconds=len(agent_track.frames) / MOTION_RATE,
        playback_delay=0.0,
        info={},
        user_audio=None if user is None else read_audio(user),
        agent_audio=None if agent is None else read_audio(agent),
        user_motion=None if user_motion is None else track(user_motion),
        agent_motion=agent_track,
    )


class _Loader:
    def __init__(self, bag: BagReader, path: Path) -> None:
        self.bag = bag
        self.path = path
        # agent/audio_out repeats agent/audio, later.
        wanted = {name: msgtype for name, msgtype in TOPICS.items() if name != "agent/audio_out"}
        self.names = {name.strip("/"): bag.find(name, msgtype) for name, msgtype in wanted.items()}
        self.audio: dict[str, list[tuple[int, int, int, int, Floats]]] = {"user/audio": [], "agent/audio": []}
        self.unsound: dict[str, int] = {}
        self.heard_seconds = 0.0
        self.motion: dict[str, list[tuple[int, float, Floats, npt.NDArray[np.uint8]]]] = {
            "user/motion": [],
            "agent/motion": [],
        }
        self.turns: dict[int, tuple[int, float, int, int, int]] = {}
        self.moved: dict[int, tuple[int, int]] = {}
        self.turn_audio: list[tuple[int, int, Floats, Floats]] = []
        self.joints: list[tuple[int, list[str], Any, Any]] = []
        self.commands: list[tuple[int, Any]] = []
        self.info: dict[str, Any] = {}
        self.robot = ""
        self.voice_delays: dict[int, float] = {}  # rolling mode: how late each stream of the agent is heard [s]
        self.diagnostics: dict[str, dict[str, str]] = {}

    def load(self) -> Recording:
        if not any(self.names[n] for n in ("user/audio", "agent/audio", "agent/motion", "user/motion", "turns")):
            raise UserError(
                f"{self.path} holds no conversation of ours: none of user/audio, agent/audio, agent/motion, turns; "
                f"it has {', '.join(f'{t.name} ({t.msgtype})' for t in list(self.bag.topics.values())[:8])}"
            )
        self._read()
        playback_delay = float(self.info.get("playback_delay", 0.0))
        delay = max(self.voice_delays.values(), default=playback_delay)
        origin, end = self._extent(delay)
        recording = Recording(
            name=_name(self.path.resolve()),
            path=self.path,
            origin_ns=origin,
            seconds=max((end - origin) * 1e-9, 1.0 / MOTION_RATE),
            playback_delay=playback_delay,
            info=self.info,
            diagnostics=self.diagnostics,
        )
        if self.bag.salvaged:
            recording.warnings.append(
                f"the recording was cut off ({self.bag.salvaged}); read up to its last whole part"
            )
        recording.warnings += [*self.bag.notes, *self.bag.clock.warnings]
        if (ticking := self.bag.find("clock", "rosgraph_msgs/msg/Clock")) is not None:
            recording.simulated = True
            recording.notes.append(
                f"recorded in simulated time ({ticking}): latencies are by that clock, not by the wall's"
            )
        for short, count in self.unsound.items():
            recording.warnings.append(f"{count} samples of {self.names[short]} are no numbers: silent here")
        recording.user_audio = self._audio("user/audio", recording)
        # Streams with less delay than the latest stream are heard earlier, with motion shown earlier by as much.
        earlier = {stream: own - delay for stream, own in self.voice_delays.items()}
        recording.agent_audio = self._audio("agent/audio", recording, earlier)
        recording.user_motion = self._motion("user/motion", origin, 0.0)
        recording.agent_motion = self._motion("agent/motion", origin, delay)
        recording.turns = self._turns(origin)
        recording.joints = self._joints(origin, delay)
        recording.commands = self._commands(origin, delay)
        recording.description = self._description()
        recording.robot = self.robot
        return recording

    def _read(self) -> None:
        topics = {name: short for short, name in self.names.items() if name}
        for topic, arrived, message in self.bag.messages(set(topics)):
            short = topics[topic]
            try:
                self._take(short, arrived, message)
            except ValueError as error:
                raise UserError(f"{self.path}: {topic} holds a message that contradicts itself: {error}") from error

    def _take(self, short: str, arrived: int, message: Any) -> None:
        if short in self.audio:
            samples = bag_messages.samples_of(message).mean(axis=1)
            sound = np.isfinite(samples)
            if not sound.all():
                self.unsound[short] = self.unsound.get(short, 0) + int(np.count_nonzero(~sound))
                samples = np.where(sound, samples, np.float32(0.0))
            stamp = bag_messages.stamp_ns(message.header.stamp)
            entry = (stamp, int(message.stream_id), int(message.sample_index), int(message.sample_rate), samples)
            self.audio[short].append(entry)
            if not MIN_RATE <= int(message.sample_rate) <= MAX_RATE:
                raise ValueError(f"a sample rate of {message.sample_rate} Hz")
            self.heard_seconds += len(samples) / int(message.sample_rate)
        elif short in self.motion:
            stamp, frames = bag_messages.stamp_ns(message.header.stamp), bag_messages.frames_of(message)
            speaking = np.asarray(message.speaking, np.uint8)
            if len(speaking) != len(frames):
                speaking = np.full(len(frames), 255, np.uint8)
            self.motion[short].append((stamp, float(message.rate), frames, speaking))
            if short == "agent/motion":
                self.moved.setdefault(int(message.turn), (arrived, stamp))
        elif short == "turns":
            if int(message.phase) == 0 and int(message.number) not in self.turns:
                stamp = bag_messages.stamp_ns(message.header.stamp)
                lost = int(message.lost_user_samples), int(message.lost_agent_samples)
                self.turns[int(message.number)] = (stamp, float(message.duration), arrived, *lost)
                rate = int(message.sample_rate)
                self.turn_audio.append((stamp, rate, message.user_speech, message.agent_speech))
        elif short == "stream_info":
            fields = [f.name for f in dataclasses.fields(message) if f.name != "header" and not f.name.startswith("_")]
            self.info = {name: _plain(getattr(message, name)) for name in fields}
        elif short == "retarget_info":
            self.robot = str(message.robot)
        elif short == "agent/voice_timing":
            self.voice_delays[int(message.stream_id)] = float(message.delay)
        elif short == "joint_states":
            stamp = bag_messages.stamp_ns(message.header.stamp) or arrived
            self.joints.append((stamp, list(message.name), message.position, message.velocity))
        elif short == "joint_trajectory":
            self.commands.append((bag_messages.stamp_ns(message.header.stamp) or arrived, message))
        elif short == "diagnostics":
            for status in message.status:
                rows = {pair.key: pair.value for pair in status.values}
                self.diagnostics[status.name] = {"message": status.message, **rows}

    def _description(self) -> str:
        topic = self.bag.find("robot_description", "std_msgs/msg/String")
        texts = [] if topic is None else [str(message.data) for _, _, message in self.bag.messages({topic})]
        return texts[-1] if texts else ""

    def _extent(self, delay: float) -> tuple[int, int]:
        starts: list[int] = []
        ends: list[int] = []
        for pieces in self.audio.values():
            starts += [piece[0] for piece in pieces[:1]]
            ends += [stamp + len(samples) * 1_000_000_000 // max(rate, 1) for stamp, _, _, rate, samples in pieces[-1:]]
        if not starts:
            for stamp, duration, *_ in self.turns.values():
                starts.append(stamp)
                ends.append(stamp + round(duration * 1e9))
        if not starts:
            for short, parts in self.motion.items():
                shift = round(delay * 1e9) if short == "agent/motion" else 0
                for stamp, rate, frames, _ in parts:
                    starts.append(stamp - shift)
                    ends.append(stamp - shift + round(len(frames) / max(rate, 1e-3) * 1e9))
        if not starts:
            raise UserError(f"{self.path}: its topics of audio and motion are empty")
        hours = (max(ends) - min(starts)) / 3600e9
        # The recording's length bounds the memory, for any stamp.
        recorded = self.bag.seconds / 3600 + self.heard_seconds / 3600 + 1.0
        if hours > min(recorded, LONGEST_HOURS):
            raise UserError(
                f"{self.path}: the stamps of its audio or motion span {hours:.0f} hours, but it was recorded in "
                f"{self.bag.seconds / 3600:.1f}: they are of different clocks"
            )
        return min(starts), max(ends)

    def _audio(self, short: str, recording: Recording, shifts: Mapping[int, float] | None = None) -> Floats | None:
        """A speaker's audio from 0 to the end at 16 kHz; missing samples are silence.

        :param shifts: shifts of streams in seconds, by stream id.
        """
        role = short.split("/", maxsplit=1)[0]
        pieces = self.audio[short]
        out = np.zeros(round(recording.seconds * MODEL_RATE), np.float32)
        if not pieces:
            if not self.turn_audio:
                return None
            for stamp, rate, user, agent in self.turn_audio:
                speech = np.asarray(user if role == "user" else agent, np.float32)
                _place(out, speech, (stamp - recording.origin_ns) * 1e-9, rate)
            return out
        for stream in dict.fromkeys((piece[1], piece[3]) for piece in pieces):
            of_stream = [piece for piece in pieces if (piece[1], piece[3]) == stream]
            first_stamp, _, first_index, rate, _ = min(of_stream, key=lambda piece: piece[2])
            length = max(piece[2] + len(piece[4]) for piece in of_stream) - first_index
            if length > (recording.seconds + 60.0) * rate:
                # The sample indices come from several counts: only the stamps give each piece's place.
                recording.warnings.append(f"sample indices of {self.names[short]} leap: its chunks lie by their stamps")
                for stamp, _, _, _, samples in of_stream:
                    _place(out, samples, (stamp - recording.origin_ns) * 1e-9, rate)
                continue
            whole = np.zeros(length, np.float32)
            for _, _, index, _, samples in of_stream:
                whole[index - first_index : index - first_index + len(samples)] = samples
            shift = (shifts or {}).get(stream[0], 0.0)
            _place(out, whole, (first_stamp - recording.origin_ns) * 1e-9 + shift, rate)
        return out

    def _motion(self, short: str, origin: int, delay: float) -> Motion | None:
        pieces = [piece for piece in self.motion[short] if len(piece[2])]
        if not pieces:
            return None
        times = [
            (stamp - origin) * 1e-9 - delay + np.arange(len(frames)) / max(rate, 1e-3)
            for stamp, rate, frames, _ in pieces
        ]
        time = np.concatenate(times)
        order = np.argsort(time, kind="stable")
        frames = np.concatenate([piece[2] for piece in pieces])[order]
        speaking = np.concatenate([piece[3] for piece in pieces])[order]
        return Motion(time[order], frames, speaking)

    def _turns(self, origin: int) -> list[TurnRow]:
        rows = []
        for number, (stamp, duration, arrived, lost_user, lost_agent) in sorted(self.turns.items()):
            moved = (self.moved[number][0] - origin) * 1e-9 if number in self.moved else float("nan")
            start, heard = (stamp - origin) * 1e-9, (arrived - origin) * 1e-9
            rows.append(TurnRow(number, start, duration, heard, moved, lost_user, lost_agent))
        return rows

    def _joints(self, origin: int, delay: float) -> Joints | None:
        if not self.joints:
            return None
        names = list(dict.fromkeys(name for _, part, _, _ in self.joints for name in part))
        column = {name: index for index, name in enumerate(names)}
        position = np.full((len(self.joints), len(names)), np.nan)
        velocity = np.full_like(position, np.nan)
        for row, (_, part, positions, velocities) in enumerate(self.joints):
            columns = [column[name] for name in part]
            if len(positions) != len(columns):
                continue
            position[row, columns] = positions
            if len(velocities) == len(columns):
                velocity[row, columns] = velocities
        # Several publishers may share the topic (head and body): each joint keeps its last value between messages.
        time = np.array([(stamp - origin) * 1e-9 - delay for stamp, *_ in self.joints])
        order = np.argsort(time, kind="stable")
        return Joints(names, time[order], hold(position[order]), hold(velocity[order]))

    def _commands(self, origin: int, delay: float) -> Joints | None:
        """All points of the trajectories, each up to the beginning of the next trajectory, which replaces it."""
        rows = [(stamp, message) for stamp, message in self.commands if message.points]
        if not rows:
            return None
        names = list(rows[0][1].joint_names)
        time: list[float] = []
        position: list[npt.NDArray[Any]] = []
        velocity: list[npt.NDArray[Any]] = []
        for stamp, message in rows:
            if list(message.joint_names) != names:
                continue
            for point in message.points:
                if len(point.positions) != len(names):
                    continue
                due = (stamp + bag_messages.stamp_ns(point.time_from_start) - origin) * 1e-9 - delay
                while point is message.points[0] and time and time[-1] >= due:
                    for column in (time, position, velocity):
                        column.pop()
                time.append(due)
                position.append(np.asarray(point.positions))
                known = len(point.velocities) == len(names)
                velocity.append(np.asarray(point.velocities) if known else np.full(len(names), np.nan))
        if not time:
            return None
        return Joints(names, np.array(time), np.array(position), np.array(velocity))


def _plain(value: Any) -> Any:
    """A message's scalar as a Python value; float32 without spurious digits."""
    if isinstance(value, (float, np.floating)):
        return float(np.format_float_positional(np.float32(value), unique=True))
    return value.item() if isinstance(value, np.generic) else value


def hold(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """NaN replaced by the last known value above it in the same column, [T, K]; NaN stays before the first value."""
    rows = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(rows, axis=0)
    return np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=0), np.nan).astype(values.dtype)


def _place(out: Floats, samples: npt.ArrayLike, start: float, rate: int) -> None:
    """Write samples into ``out`` (16 kHz from 0) at a time in seconds."""
    data = np.asarray(samples, np.float32)
    if rate != MODEL_RATE and len(data):
        import soxr

        data = np.asarray(soxr.resample(data, rate, MODEL_RATE), np.float32)
    at = round(start * MODEL_RATE)
    first, last = max(0, at), min(len(out), at + len(data))
    if last > first:
        out[first:last] = data[first - at : last - at]
