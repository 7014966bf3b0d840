"""What a bag gives the robot to hear and see, whatever package recorded it.

A mapping names the topics (all parts are optional; what is not named is looked for under our own names)::

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
import yaml
from scipy.spatial.transform import Rotation

from timar_ros.data import bag_messages, foreign_audio
from timar_ros.data.bags import BagReader
from timar_ros.data.foreign_frames import FrameTree
from timar_ros.data.foreign_head import OPTICAL_AXES, head_frame
from timar_ros.errors import UserError
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

#: A stamp that leaves the count of samples by more than this [ns] begins a new stream.
JUMP_NS = 250_000_000
TF_PERIOD_NS = 40_000_000


@dataclasses.dataclass(frozen=True)
class AudioEvent:
    """Samples [n, channels] of one speaker, as a turn builder takes them."""

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
    """A mapping from its YAML file, checked.

    :raises UserError: naming the entry that is not understood.
    """
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the topic mapping {path}: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict) or set(given) - set(PARTS):
        raise UserError(f"{path}: a topic mapping has the entries {', '.join(PARTS)}, not {_listed(given)}")
    mapping: dict[str, dict[str, Any]] = {}
    for part, entry in given.items():
        table = {"topic": entry} if isinstance(entry, str) else entry
        allowed = MOTION_KEYS if part == "user_motion" else AUDIO_KEYS
        if not isinstance(table, dict) or set(table) - allowed:
            raise UserError(f"{path}: '{part}' is a topic's name, or a table of {', '.join(sorted(allowed))}")
        if "topic" not in table and "frame" not in table:
            raise UserError(f"{path}: '{part}' names no topic")
        mapping[part] = table
    return mapping


class Inputs:
    """The three inputs of a bag, found and made ready to be read.

    :param mapping: from :func:`read_mapping`.
    :raises UserError: when neither speaker's audio is there, or an entry of the mapping does not fit the bag.
    """

    def __init__(self, bag: BagReader, mapping: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.bag = bag
        self.notes: list[str] = []
        """What was found under which name, and what is missing and what that means."""
        self._decoders: dict[str, list[Decoder]] = {}
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
        for topic, arrived, message in self.bag.messages(set(self._decoders)):
            for decoder in self._decoders[topic]:
                try:
                    yield from decoder(arrived, message)
                except ValueError as error:
                    raise UserError(f"{self.bag.path}: {topic}: {error}") from error
                except UserError as error:
                    raise UserError(f"{self.bag.path}: {topic}: {error}") from error

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
        """The format that a ros-drivers AudioInfo announces, or that the mapping gives."""
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
        """Read the first message now, so that what does not fit is said before the run."""
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
        self.notes.append(f"user's head: {topic} ({msgtype}), {self.bag.topics[topic].count} messages")

    def _find_frame(self, entry: Mapping[str, Any]) -> None:
        names = [t.name for t in self.bag.topics.values() if t.msgtype == TF]
        if not names:
            raise UserError(f"{self.bag.path} has no TF to take the frame '{entry['frame']}' from")
        tracker = _TfTracker(entry)
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
    """Messages without a sample index: samples are counted, and a stamp that leaves the count begins a new stream."""
    stream, index = 0, 0
    first: int | None = None

    def decode(arrived: int, message: Any) -> Iterator[Event]:
        nonlocal stream, index, first
        audio = foreign_audio.decode(message, fallback)
        length = len(audio.samples) * 1_000_000_000 // audio.rate
        # Where nothing tells when it was said, it ended when it came.
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
    """Where nothing is said: a head that faces against the reference's x, as a person before the robot does."""
    try:
        return _quaternion([float(value) for value in entry.get("neutral", [0.0, 0.0, 1.0, 0.0])])
    except (TypeError, ValueError) as error:
        raise UserError(f"user_motion: 'neutral' is a quaternion x, y, z, w, not {entry.get('neutral')}") from error


def _quaternion(values: list[float]) -> list[float]:
    if len(values) != 4 or not np.isfinite(values).all() or np.linalg.norm(values) < 1e-6:
        raise ValueError(f"{values} is no orientation")
    return values


def _listed(given: Any) -> str:
    return ", ".join(map(str, given)) if isinstance(given, dict) else type(given).__name__
