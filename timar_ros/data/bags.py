"""Reading and writing ROS 2 bags without ROS (rosbags; MCAP by default, sqlite3 too).

The bags written here are what ``ros2 bag`` writes: a folder with ``metadata.yaml`` (version 9) and one storage file,
types embedded as ros2msg text with their RIHS01 hashes. Messages pass through as CDR bytes wherever possible.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from rosbags.interfaces import (
    Connection,
    MessageDefinitionFormat,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.interfaces import Qos as BagQos
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, ReaderError, StoragePlugin, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from timar_ros.data.bag_salvage import SalvageReader
from timar_ros.data.bag_storage import BagFolderWriter
from timar_ros.data.bag_types import new_typestore, register, typestore
from timar_ros.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

#: Topics of this package, relative to the namespace, and their types: what a bag of ours is expected to hold.
TOPICS: Mapping[str, str] = {
    "user/audio": "timar_ros/msg/AudioChunk",
    "agent/audio": "timar_ros/msg/AudioChunk",
    "agent/audio_out": "timar_ros/msg/AudioChunk",
    "user/motion": "timar_ros/msg/FlameMotion",
    "agent/motion": "timar_ros/msg/FlameMotion",
    "agent/voice_timing": "timar_ros/msg/VoiceTiming",
    "turns": "timar_ros/msg/Turn",
    "stream_info": "timar_ros/msg/StreamInfo",
    "retarget_info": "timar_ros/msg/RetargetInfo",
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "joint_states": "sensor_msgs/msg/JointState",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}

#: Topics whose last message a late subscriber must still get.
LATCHED = frozenset({"stream_info", "retarget_info", "robot_description", "tf_static"})

_NEVER = QosTime(sec=9223372036, nsec=854775807)


def bag_qos(*, latched: bool = False, depth: int = 10, reliable: bool = True) -> BagQos:
    """An offered QoS profile for a bag's metadata (no deadline, no lifespan, automatic liveliness)."""
    return BagQos(
        QosHistory.KEEP_LAST,
        1 if latched else depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _NEVER,
        _NEVER,
        QosLiveliness.AUTOMATIC,
        _NEVER,
        False,
    )


def is_latched(topic: str) -> bool:
    """Whether a topic of this name is latched by convention (``LATCHED``)."""
    return topic.rsplit("/", 1)[-1] in LATCHED


@dataclasses.dataclass(frozen=True)
class BagTopic:
    """What a bag says of one topic."""

    name: str
    msgtype: str
    count: int
    qos: tuple[BagQos, ...] = ()


class BagWriter:
    """Writes a bag folder; messages as CDR bytes or as rosbags' message objects. Not thread-safe.

    MCAP chunks reach the disk at least each ``flush_seconds`` of wall time while messages come in, so that a process
    killed outright leaves a bag that :class:`BagReader` reads up to its last chunk.

    :raises UserError: when the folder exists already or cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        storage: Literal["mcap", "sqlite3"] = "mcap",
        compress: bool = False,
        flush_seconds: float = 1.0,
    ) -> None:
        self.path = Path(path)
        self.flush_seconds = flush_seconds
        self.counts: dict[str, int] = {}
        self._store: Typestore = typestore()
        self._connections: dict[str, Connection] = {}
        self._flushed = time.monotonic()
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        try:
            self._writer = BagFolderWriter(self.path, version=9, storage_plugin=plugin)
            if compress:
                mode = CompressionMode.STORAGE if storage == "mcap" else CompressionMode.MESSAGE
                self._writer.set_compression(mode, CompressionFormat.ZSTD)
            self._writer.open()
        except (WriterError, OSError) as error:
            raise UserError(f"cannot write a bag to {self.path}: {_plain(error)}; choose another path") from error
        self._open = True

    def add_topic(
        self,
        topic: str,
        msgtype: str,
        qos: Collection[BagQos] | None = None,
        *,
        msgdef: str | None = None,
        digest: str | None = None,
    ) -> None:
        """Announce a topic. A second call for the same topic does nothing.

        :param qos: offered profiles; by default reliable, and latched where the name says so (see :func:`is_latched`).
        :param msgdef: the type's full text with its ``digest`` (RIHS01), when both are known; else they are looked up.
        :raises UserError: when the type is unknown here.
        """
        if topic in self._connections:
            return
        if msgdef is None or digest is None:
            if msgtype not in self._store.fielddefs:
                # The shared store stays as it is; a writer of foreign types has its own.
                self._store = new_typestore() if self._store is typestore() else self._store
                register(self._store, msgtype)
            msgdef, _ = self._store.generate_msgdef(msgtype, ros_version=2)
            digest = self._store.hash_rihs01(msgtype)
        profiles = list(qos) if qos is not None else [bag_qos(latched=is_latched(topic), depth=100)]
        self._connections[topic] = self._writer.add_connection(
            topic, msgtype, msgdef=msgdef, rihs01=digest, offered_qos_profiles=profiles
        )
        self.counts[topic] = 0

    def write_raw(self, topic: str, stamp_ns: int, cdr: bytes | memoryview) -> None:
        """Write a serialized message with its time of arrival [ns]."""
        self._writer.write(self._connections[topic], stamp_ns, cdr)
        self.counts[topic] += 1
        self.flush_if_due()

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Serialize and write a message object of :attr:`types`."""
        self.write_raw(topic, stamp_ns, self._store.serialize_cdr(message, self._connections[topic].msgtype))

    @property
    def types(self) -> Mapping[str, Any]:
        """Message classes by type name, such as ``types["timar_ros/msg/AudioChunk"]``."""
        return self._store.types

    def note(self, key: str, value: str) -> None:
        """Put a line into the ``custom_data`` of the bag's metadata (written when the bag is closed)."""
        self._writer.set_custom_data(key, value)

    def flush_if_due(self) -> None:
        """Flush when ``flush_seconds`` have passed since the last time; to be called now and then when idle."""
        if time.monotonic() - self._flushed > self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Bring what was written so far to the disk as a whole chunk (MCAP) or transaction (sqlite3)."""
        self._flushed = time.monotonic()
        storage: Any = self._writer.storage
        if isinstance(storage, McapWriter):
            if storage.chunk.msgs:
                storage.close_chunk()
            storage.bio.flush()
        elif storage is not None:
            storage.conn.commit()

    def close(self) -> None:
        """Write index and metadata. A second call does nothing."""
        if self._open:
            self._open = False
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BagReader:
    """Reads a bag folder, an ``.mcap`` or a ``.db3`` file, with the types that the bag itself describes.

    A recording that was cut off (no metadata, no index) is read up to its last whole chunk; :attr:`salvaged` then says
    what is wrong with it.

    :raises UserError: when there is no bag at the path, or nothing in it can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.salvaged: str | None = None
        self.custom: dict[str, str] = {}
        if not self.path.exists():
            raise UserError(f"no bag at {self.path}: give a bag folder, an .mcap or a .db3 file")
        self._reader: Reader | SalvageReader = self._open()
        try:
            self._store = _store_of(self._reader.connections)
        except (TypesysError, ValueError, KeyError, IndexError, AssertionError) as error:
            self.close()
            raise UserError(f"the bag {self.path} is damaged: it describes no valid message types") from error
        if not self.topics or not any(topic.count for topic in self.topics.values()):
            self.close()
            raise UserError(f"the bag {self.path} is empty: it holds no message")

    def _open(self) -> Reader | SalvageReader:
        target = self.path
        if target.is_dir() and not (target / "metadata.yaml").exists():
            files = sorted([*target.glob("*.mcap"), *target.glob("*.db3")])
            if not files:
                raise UserError(
                    f"no bag in the folder {target}: it has neither metadata.yaml nor an .mcap or .db3 file"
                )
            if files[0].suffix == ".mcap":
                return self._salvage(files, "it has no metadata.yaml (the recorder was killed?)")
            self.salvaged = "it has no metadata.yaml (the recorder was killed?)"
            target = files[0]
        if target.is_file() and target.suffix not in (".mcap", ".db3"):
            raise UserError(f"{target} is not a bag: expected a bag folder, an .mcap or a .db3 file")
        try:
            reader = Reader(target)
            reader.open()
        except (ReaderError, OSError, ValueError, AssertionError, KeyError, TypeError, IndexError) as error:
            # rosbags lets the parsers' own errors through on files that end in the middle of a record.
            files = sorted(target.glob("*.mcap")) if target.is_dir() else [target]
            if files and files[0].suffix == ".mcap":
                return self._salvage(files, _plain(error))
            raise UserError(f"cannot read the bag {self.path}: {_plain(error)}") from error
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("sqlite3", "struct", "rosbags", "ruamel"):
                raise
            raise UserError(f"cannot read the bag {self.path}: {_plain(error)}") from error
        metadata = getattr(reader.storage, "metadata", None)
        self.custom = dict(getattr(metadata, "custom", None) or {})
        return reader

    def _salvage(self, files: list[Path], why: str) -> SalvageReader:
        self.salvaged = why
        return SalvageReader(self.path, files)

    @property
    def topics(self) -> dict[str, BagTopic]:
        """The bag's topics by name (the count of a topic sums its publishers)."""
        found: dict[str, BagTopic] = {}
        for connection in self._reader.connections:
            before = found.get(connection.topic)
            count = connection.msgcount + (before.count if before else 0)
            qos = tuple(getattr(connection.ext, "offered_qos_profiles", ()))
            found[connection.topic] = BagTopic(connection.topic, connection.msgtype, count, qos)
        return found

    @property
    def start_ns(self) -> int:
        """Time of arrival of the first message [ns]."""
        return self._reader.start_time

    @property
    def end_ns(self) -> int:
        """Time of arrival of the last message [ns]."""
        return self._reader.end_time - 1

    @property
    def seconds(self) -> float:
        """Length of the recording [s]."""
        return max(0.0, (self.end_ns - self.start_ns) * 1e-9)

    def find(self, topic: str, msgtype: str | None = None) -> str | None:
        """Full name of the topic that a relative name such as ``user/audio`` stands for, in whatever namespace.

        :returns: None when the bag has no such topic (or not of that type).
        :raises UserError: when several namespaces have it.
        """
        bare = topic.strip("/")
        # Topics with messages first: a name announced but never used must not hide the one that was.
        named = [
            t.name
            for t in self.topics.values()
            if (t.name.strip("/") == bare or t.name.endswith(f"/{bare}"))
            and t.count
            and (msgtype is None or t.msgtype == msgtype)
        ]
        if not named:
            return None
        shortest = min(named, key=len)
        if len(named) > 1 and shortest.strip("/") != bare:
            raise UserError(f"several topics of {self.path} end in '{bare}': {', '.join(named)}; name one in --topics")
        return shortest

    def raw(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time of arrival [ns] and CDR bytes of each message, in order of arrival."""
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not wanted:
            return
        try:
            for connection, stamp_ns, data in self._reader.messages(wanted):
                yield connection.topic, stamp_ns, bytes(data)
        except (ReaderError, OSError, ValueError, AssertionError, KeyError, IndexError) as error:
            raise UserError(f"the bag {self.path} is damaged: {_plain(error)}") from error

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, Any]]:
        """Topic, time of arrival [ns] and the message of each, in order of arrival; arrays are numpy's.

        :raises UserError: when a message does not fit its own type.
        """
        types = {name: topic.msgtype for name, topic in self.topics.items()}
        for topic, stamp_ns, data in self.raw(topics):
            yield topic, stamp_ns, self.decode(types[topic], data)

    def decode(self, msgtype: str, data: bytes) -> Any:
        """The message in some CDR bytes.

        :raises UserError: when they do not fit the type.
        """
        try:
            return self._store.deserialize_cdr(data, msgtype)
        except (SerdeError, KeyError, IndexError, ValueError, AssertionError) as error:
            raise UserError(
                f"{self.path}: a message is no {msgtype} as the bag describes it: {_plain(error)}"
            ) from error

    def definition(self, topic: str) -> tuple[str, str]:
        """Text and RIHS01 hash of a topic's type, to write the same topic elsewhere unchanged."""
        msgtype = self.topics[topic].msgtype
        text, _ = self._store.generate_msgdef(msgtype, ros_version=2)
        return text, self._store.hash_rihs01(msgtype)

    def close(self) -> None:
        """Close the files. A second call does nothing."""
        with suppress(AssertionError):
            if isinstance(self._reader, SalvageReader) or self._reader.is_open:
                self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _store_of(connections: Collection[Connection]) -> Typestore:
    """A store with the types as the bag describes them; where it does not, as we know them."""
    described: dict[str, Any] = {}
    for connection in connections:
        if connection.msgdef.format == MessageDefinitionFormat.MSG:
            described.update(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        elif connection.msgdef.format == MessageDefinitionFormat.IDL:
            described.update(get_types_from_idl(connection.msgdef.data))
    known = new_typestore()
    clashing = {name for name, fields in described.items() if known.fielddefs.get(name, fields) != fields}
    if not clashing:
        known.register({name: fields for name, fields in described.items() if name not in known.fielddefs})
        return known
    # A bag made with other definitions under the same names: only its own words count.
    store = get_typestore(Stores.EMPTY)
    store.register(described)
    return store


def _plain(error: BaseException) -> str:
    """An error's text on one line, without the final stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
