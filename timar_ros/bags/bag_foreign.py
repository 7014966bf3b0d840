"""The robot's inputs from a bag of any package.

A mapping names the topics (all parts are optional; missing parts default to our own names)::

    user_audio: /mic/audio_stamped          # a topic, or a table:
    agent_audio:
      topic: /tts/audio
      rate: 16000                           # where the messages do not say: rate [Hz], channels, encoding
      channels: 1
      encoding: S16LE
      info: /tts/audio_info                 # or the topic of a ros-drivers AudioInfo
    user_motion:
      topic: /face/pose                     # FlameMotion or geometry_msgs/PoseStamped; or a TF frame:
      frame: face_1
      reference: camera_link
      optical: false                        # z out of the face instead of x
      neutral: [0, 0, 1, 0]                 # x y z w of a head that looks straight at its partner
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import BagReader
from timar_ros.errors import UserError
from timar_ros.files.reading import read_yaml
from timar_ros.foreign import foreign_audio
from timar_ros.foreign.foreign_frames import FrameTree
from timar_ros.foreign.foreign_head import OPTICAL_AXES, head_frame
from timar_ros.motion import MOTION_RATE

Floats = npt.NDArray[np.float32]
Role = Literal["user", "agent"]

PARTS = ("user_audio", "agent_audio", "user_motion")
AUDIO_KEYS = {"topic", "rate", "channels", "encoding", "info"}
MOTION_KEYS = {"topic", "frame", "reference", "optical", "neutral"}
CHUNK = "timar_ros/msg/AudioChunk"
MOTION = "timar_ros/msg/FlameMotion"
POSE = "geometry_msgs/msg/PoseStamped"
TF = "tf2_msgs/msg/TFMessage"

#: A stamp that differs from the count of samples by more than this [ns] begins a new stream.
JUMP_NS = 250_000_000
TF_PERIOD_NS = 40_000_000


@dataclasses.dataclass(frozen=True)
class AudioEvent:
    """Samples [n, channels] of one speaker, as input of a turn builder."""

    arrived_ns: int
    role: Role
    stamp_ns: int
    sample_index: int
    rate: int
    samples: Floats
    stream_id: int = 0
    end: bool = False


@dataclasses.dataclass(frozen=True)
class MotionEvent:
    """Frames [n, 56] of the user's head, NaN where not known."""

    arrived_ns: int
    stamp_ns: int
    rate: float
    frames: Floats


Event = AudioEvent | MotionEvent
Decoder = Callable[[int, Any], Iterator[Event]]


def read_mapping(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read and check a mapping from its YAML file.

    :raises UserError: names the invalid entry.
    """
    entries = read_yaml(path, "topic mapping") or {}
    if not isinstance(entries, dict) or set(entries) - set(PARTS):
        raise UserError(f"{path}: a topic mapping has the entries {', '.join(PARTS)}, not {_listed(entries)}")
    mapping: dict[str, dict[str, Any]] = {}
    for part, entry in entries.items():
        table = {"topic": entry} if isinstance(entry, str) else entry
        allowed = MOTION_KEYS if part == "user_motion" else AUDIO_KEYS
        if not isinstance(table, dict) or set(table) - allowed:
            raise UserError(f"{path}: '{part}' is a topic's name, or a table of {', '.join(sorted(allowed))}")
        if "topic" not in table and "frame" not in table:
            raise UserError(f"{path}: '{part}' names no topic")
        for key, value in table.items():
            if isinstance(value, str) and not value.isprintable():
                raise UserError(f"{path}: '{part}' has control characters in {key}: {value!r}")
        mapping[part] = table
    return mapping


class Inputs:
    """The three inputs of a bag, found and ready for reading.

    :param mapping: from :func:`read_mapping`.
    :raises UserError: when both speakers' audio is missing, or an entry of the mapping does not fit the bag.
    """

    def __init__(self, bag: BagReader, mapping: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.bag = bag
        self.notes: list[str] = []
        """Found inputs with their topics, and missing inputs with the consequences."""
        self._decoders: dict[str, list[Decoder]] = {}
        self._motion_topics: list[str] = []
        self._formats: dict[str, foreign_audio.PcmFormat] = {}
        mapping = mapping or {}
        found = [self._find_audio(role, mapping.get(f"{role}_audio")) for role in ("user", "agent")]
        if not any(found):
            names = ", ".join(f"{topic.name} ({topic.msgtype})" for topic in list(bag.topics.values())[:8])
            raise UserError(
                f"{bag.path} has neither user/audio nor agent/audio; name its topics in --topics: it has {names}"
            )
        self._find_motion(mapping.get("user_motion"))

    def events(self) -> Iterator[Event]:
        """Everything in order of arrival.

        :raises UserError: on a message whose contents do not fit its type, or compressed audio.
        """
        return self._events(self._decoders)

    def motion(self) -> Iterator[MotionEvent]:
        """The user's motion alone, in order of arrival.

        :raises UserError: on a message whose contents do not fit its type.
        """
        events = self._events({topic: self._decoders[topic] for topic in self._motion_topics})
        return (event for event in events if isinstance(event, MotionEvent))

    def _events(self, decoders: Mapping[str, list[Decoder]]) -> Iterator[Event]:
        for topic, arrived, message in self.bag.messages(set(decoders)):
            for decoder in decoders[topic]:
                try:
                    yield from decoder(arrived, message)
                except ValueError as error:
                    raise UserError(f"{self.bag.path}: {topic}: {error}") from error
                except UserError as error:
                    raise UserError(f"{self.bag.path}: {topic}: {error}") from error

    def streams_ahead(self) -> dict[int, bool]:
        """Whether the agent's recorded streams were ahead of their time, by stream_id (rolling mode).

        Empty if the bag lacks this information.
        """
        topic = self.bag.find("agent/voice_timing")
        messages = [] if topic is None else [message for _, _, message in self.bag.messages({topic})]
        return {int(message.stream_id): not float(message.delay) for message in messages}

    def _topic(self, name: str, what: str) -> str:
        topic = name if name in self.bag.topics else self.bag.find(name)
        if topic is None:
            raise UserError(f"{self.bag.path} has no topic '{name}' with messages, which the mapping names as {what}")
        return topic

    def _find_audio(self, role: Role, entry: Mapping[str, Any] | None) -> bool:
        what = f"{role}_audio"
        topic = self._topic(str(entry["topic"]), what) if entry else self.bag.find(f"{role}/audio", CHUNK)
        if topic is None:
            self.notes.append(f"{role}'s audio is MISSING (no topic {role}/audio): taken as silence")
            return False
        msgtype = self.bag.topics[topic].msgtype
        self.notes.append(f"{role}'s audio: {topic} ({msgtype}), {self.bag.topics[topic].count} messages")
        if msgtype == CHUNK:
            self._decoders.setdefault(topic, []).append(_chunks(role))
            return True
        fallback = self._format(entry or {}, topic)
        self._decoders.setdefault(topic, []).append(_foreign_audio(role, fallback))
        self._probe(topic, fallback)
        return True

    def _format(self, entry: Mapping[str, Any], topic: str) -> foreign_audio.PcmFormat | None:
        """The format from a ros-drivers AudioInfo or from the mapping."""
        if "rate" in entry:
            try:
                encoding = foreign_audio.encoding_of(str(entry.get("encoding", "S16LE")))
                return foreign_audio.PcmFormat(int(entry["rate"]), int(entry.get("channels", 1)), encoding)
            except (TypeError, ValueError) as error:
                raise UserError(f"the format given for {topic} is not understood: {error}") from error
        # ros-drivers' own names: audio and audio_info, side by side.
        guess = f"{topic.rsplit('/', 1)[0]}/audio_info"
        info = self._topic(str(entry["info"]), "the audio's info") if "info" in entry else guess
        if info not in self.bag.topics:
            return None
        for _, _, message in self.bag.messages({info}):
            if hasattr(message, "coding_format"):
                return foreign_audio.format_from_info(message)
        return None

    def _probe(self, topic: str, fallback: foreign_audio.PcmFormat | None) -> None:
        """Read the first message now, so that a mismatch is reported before the run."""
        for _, _, message in self.bag.messages({topic}):
            try:
                foreign_audio.decode(message, fallback)
            except UserError as error:
                raise UserError(f"{self.bag.path}: {topic}: {error}") from error
            return

    def _find_motion(self, entry: Mapping[str, Any] | None) -> None:
        if entry and "frame" in entry:
            self._find_frame(entry)
            return
        topic = self._topic(str(entry["topic"]), "user_motion") if entry else self.bag.find("user/motion", MOTION)
        if topic is None:
            self.notes.append("the user's head is MISSING (no topic user/motion): taken as not tracked")
            return
        msgtype = self.bag.topics[topic].msgtype
        decoder: Decoder
        if msgtype == MOTION:
            decoder = _frames
        elif msgtype == POSE:
            decoder = _poses(entry or {})
        else:
            raise UserError(f"{topic} is a {msgtype}; a user's head is a FlameMotion, a PoseStamped or a TF frame")
        self._decoders.setdefault(topic, []).append(decoder)
        self._motion_topics = [topic]
        self.notes.append(f"user's head: {topic} ({msgtype}), {self.bag.topics[topic].count} messages")

    def _find_frame(self, entry: Mapping[str, Any]) -> None:
        names = [t.name for t in self.bag.topics.values() if t.msgtype == TF]
        if not names:
            raise UserError(f"{self.bag.path} has no TF to take the frame '{entry['frame']}' from")
        tracker = _TfTracker(entry)
        self._motion_topics = names
        for name in names:
            static = name.rsplit("/", 1)[-1] == "tf_static"
            self._decoders.setdefault(name, []).append(tracker.static if static else tracker.moving)
        self.notes.append(f"user's head: TF frame {entry['frame']} in {entry.get('reference', 'base_link')}")


def _chunks(role: Role) -> Decoder:
    def decode(arrived: int, message: Any) -> Iterator[Event]:
        stamp = bag_messages.stamp_ns(message.header.stamp)
        samples = bag_messages.samples_of(message)
        index, rate = int(message.sample_index), int(message.sample_rate)
        end = bool(message.end_of_stream)
        yield AudioEvent(arrived, role, stamp, index, rate, samples, int(message.stream_id), end)

    return decode


def _foreign_audio(role: Role, fallback: foreign_audio.PcmFormat | None) -> Decoder:
    """Decoder of messages without a sample index: it counts samples; a stamp off the count begins a new stream."""
    stream, index = 0, 0
    first: int | None = None

    def decode(arrived: int, message: Any) -> Iterator[Event]:
        nonlocal stream, index, first
        audio = foreign_audio.decode(message, fallback)
        length = len(audio.samples) * 1_000_000_000 // audio.rate
        # Without a stamp, assume that the audio ended at its arrival.
        stamp = audio.stamp_ns if audio.stamp_ns is not None else arrived - length
        expected = stamp if first is None else first + index * 1_000_000_000 // audio.rate
        if first is None or abs(stamp - expected) > JUMP_NS:
            stream, index, first = stream + (first is not None), 0, stamp
            expected = stamp
        placed = stamp if audio.stamp_ns is not None else expected
        yield AudioEvent(arrived, role, placed, index, audio.rate, audio.samples, stream)
        index += len(audio.samples)

    return decode


def _frames(arrived: int, message: Any) -> Iterator[Event]:
    frames = bag_messages.frames_of(message)
    if len(frames):
        yield MotionEvent(arrived, bag_messages.stamp_ns(message.header.stamp), float(message.rate), frames)


def _poses(entry: Mapping[str, Any]) -> Decoder:
    axes, neutral = _axes(entry), _neutral(entry)

    def decode(arrived: int, message: Any) -> Iterator[Event]:
        q = message.pose.orientation
        turned = Rotation.from_quat(_quaternion([q.x, q.y, q.z, q.w])) * axes
        stamp = bag_messages.stamp_ns(message.header.stamp) or arrived
        yield MotionEvent(arrived, stamp, MOTION_RATE, head_frame(turned.as_quat(), neutral=neutral)[None])

    return decode


class _TfTracker:
    """The head's pose from TF, at most 25 times a second."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self._frame = str(entry["frame"])
        self._reference = str(entry.get("reference", "base_link"))
        self._axes, self._neutral = _axes(entry), _neutral(entry)
        self._tree = FrameTree()
        self._last = -TF_PERIOD_NS

    def static(self, _arrived: int, message: Any) -> Iterator[Event]:
        self._tree.add(message, static=True)
        yield from ()

    def moving(self, arrived: int, message: Any) -> Iterator[Event]:
        self._tree.add(message, static=False)
        found = self._tree.lookup(self._reference, self._frame)
        if found is None or found[0] - self._last < TF_PERIOD_NS * 9 // 10:
            return
        self._last, rotation = found
        frame = head_frame((rotation * self._axes).as_quat(), neutral=self._neutral)
        yield MotionEvent(arrived, self._last, MOTION_RATE, frame[None])


def _axes(entry: Mapping[str, Any]) -> Rotation:
    return OPTICAL_AXES.inv() if entry.get("optical") else Rotation.identity()


def _neutral(entry: Mapping[str, Any]) -> list[float]:
    """Default: a head that faces against the reference's x, like a person in front of the robot."""
    try:
        return _quaternion([float(value) for value in entry.get("neutral", [0.0, 0.0, 1.0, 0.0])])
    except (TypeError, ValueError) as error:
        raise UserError(f"user_motion: 'neutral' is a quaternion x, y, z, w, not {entry.get('neutral')}") from error


def _quaternion(values: list[float]) -> list[float]:
    if len(values) != 4 or not np.isfinite(values).all() or np.linalg.norm(values) < 1e-6:
        raise ValueError(f"{values} is no orientation")
    return values


def _listed(content: Any) -> str:
    return ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
