"""Reading and writing ROS 2 bags without ROS (rosbags; MCAP by default, sqlite3 too).

Written bags have the form of ``ros2 bag``: a folder with ``metadata.yaml`` (version 9) and one storage file, types
embedded as ros2msg text with their RIHS01 hashes. Messages pass through as CDR bytes wherever possible.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rosbags.interfaces import (
    Connection,
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
from rosbags.typesys.store import Typestore

from timar_ros.bags.bag_clock import STAMPED, BagClock
from timar_ros.bags.bag_salvage import SalvageReader, check_records
from timar_ros.bags.bag_splits import BAG_FILES, SplitReader, split_files, steps_back
from timar_ros.bags.bag_storage import BagFolderWriter
from timar_ros.bags.bag_types import new_typestore, register, store_of, typestore
from timar_ros.bags.bag_unpacking import LARGEST_CHUNK, bound_rosbags
from timar_ros.errors import UserError
from timar_ros.files.reading import READ_ERRORS, existing_file, placeholder, plain, shown, sniff
from timar_ros.streaming.clock_steps import BACKWARD_STEP

Source: TypeAlias = "Reader | SalvageReader | SplitReader"

if TYPE_CHECKING:
    from typing_extensions import Self

#: Topics of this package, relative to the namespace, and their types: the expected topics of our bags.
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
    "gaze/target": "geometry_msgs/msg/PointStamped",
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "joint_states": "sensor_msgs/msg/JointState",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}

#: Topics whose last message a late subscriber must still get.
LATCHED = frozenset({"stream_info", "retarget_info", "robot_description", "tf_static"})

_PARSERS = ("apsw", "sqlite3", "rosbags", "ruamel")
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
    """A bag's information about one topic."""

    name: str
    msgtype: str
    count: int
    qos: tuple[BagQos, ...] = ()


class BagWriter:
    """Writes a bag folder; messages as CDR bytes or as rosbags' message objects. Not thread-safe.

    While messages arrive, MCAP chunks reach the disk at least every ``flush_seconds`` of wall time, so that a killed
    process leaves a bag that :class:`BagReader` reads up to its last chunk.

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
            raise UserError(f"cannot write a bag to {self.path}: {plain(error)}; choose another path") from error
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

        :param qos: offered profiles; by default reliable, and latched by name (see :func:`is_latched`).
        :param msgdef: the type's full text with its ``digest`` (RIHS01), when both are known; otherwise the writer
            looks them up.
        :raises UserError: when the type is unknown here.
        """
        if topic in self._connections:
            return
        if msgdef is None or digest is None:
            if msgtype not in self._store.fielddefs:
                # The shared store must not change; a writer of foreign types has its own.
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
        """Add a line to the ``custom_data`` of the bag's metadata (written when the bag is closed)."""
        self._writer.set_custom_data(key, value)

    def flush_if_due(self) -> None:
        """Flush when ``flush_seconds`` have passed since the last flush; call it now and then when idle."""
        if time.monotonic() - self._flushed > self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write all messages so far to the disk as a whole chunk (MCAP) or transaction (sqlite3)."""
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
    """Reads a bag folder, an ``.mcap`` or a ``.db3`` file, with the types described in the bag.

    An incomplete recording (no metadata, no index) is read up to its last whole chunk; :attr:`salvaged` then describes
    the damage.

    :raises UserError: when there is no bag at the path, or no message is readable.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.salvaged: str | None = None
        self.notes: list[str] = []
        """Remarks on an unusual way of reading the bag."""
        self.custom: dict[str, str] = {}
        if not self.path.exists():
            raise UserError(f"no bag at {shown(self.path)}: give a bag folder, an .mcap or a .db3 file")
        self._reader: Source = self._open()
        self._clock: BagClock | None = None
        self._store, self._unknown = store_of(self._reader.connections)
        if not self.topics or not any(topic.count for topic in self.topics.values()):
            self.close()
            raise UserError(f"the bag {self.path} is empty: it holds no message")

    def _open(self) -> Source:
        target = self.path
        if target.is_file() and target.suffix not in BAG_FILES:
            found = sniff(target)
            raise UserError(
                f"{shown(target)} is not a bag{f' but {found}' if found else ''}: "
                f"expected a bag folder, an .mcap or a .db3 file"
            )
        files = split_files(target) if target.is_dir() else [existing_file(target, "bag")]
        for file in files:
            if missing := placeholder(file):
                raise UserError(f"cannot read the bag {shown(self.path)}: {file.name} is {missing}")
        if target.is_dir() and not (target / "metadata.yaml").exists():
            if not files:
                raise UserError(
                    f"no bag in the folder {shown(target)}: it has neither metadata.yaml nor an .mcap or .db3 file"
                )
            self.notes.append(f"no metadata.yaml: {len(files)} files are read in the order of their numbers")
            return self._by_files(files, "it has no metadata.yaml")
        try:
            for file in files:
                if file.suffix == ".mcap":
                    check_records(file)
            bound_rosbags()
            reader = Reader(target)
            reader.open()
            _check_chunks(reader)
            metadata = getattr(reader.storage, "metadata", None)
            self.custom = dict(getattr(metadata, "custom", None) or {})
            compressed = getattr(metadata, "compression_mode", None) == "file"
            in_order = bool(files) and not compressed and steps_back(reader, BACKWARD_STEP)
        except Exception as error:
            # On files that end within a record, rosbags passes on the parsers' own errors.
            if not _of_a_parser(error):
                raise
            return self._by_files(files, plain(error))
        if not in_order:
            return reader
        # Times of a stepped clock would sort messages wrongly: the order in the files is the order of arrival.
        try:
            reader_of_files = self._by_files(_listed(reader, files), "")
        except UserError:
            return reader
        reader.close()
        return reader_of_files

    def _by_files(self, files: list[Path], why: str) -> Source:
        """Read a recording without usable index or metadata from front to back."""
        if not files:
            raise UserError(f"cannot read the bag {shown(self.path)}: {why}")
        if files[0].suffix == ".mcap":
            salvage = SalvageReader(self.path, files)
            self.salvaged = salvage.torn
            return salvage
        try:
            return SplitReader(files)
        except Exception as error:
            if not _of_a_parser(error):
                raise
            raise UserError(f"cannot read the bag {shown(self.path)}: {why or plain(error)}") from error

    @property
    def topics(self) -> dict[str, BagTopic]:
        """The bag's topics by name (a topic's count is the sum over its publishers)."""
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
        """Full name of the topic for a relative name such as ``user/audio``, in any namespace.

        :returns: None when the bag has no such topic (or none of that type).
        :raises UserError: when several namespaces have the topic.
        """
        bare = topic.strip("/")
        # Topics with messages first: an announced but unused name must not hide a used one.
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
        for connection, stamp_ns, data in self._walk(topics):
            yield connection.topic, stamp_ns, data

    def _walk(self, topics: Collection[str] | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not wanted:
            return
        try:
            for connection, stamp_ns, data in self._reader.messages(wanted):
                yield connection, stamp_ns, bytes(data)
        except Exception as error:
            if not _of_a_parser(error):
                raise
            raise UserError(f"the bag {shown(self.path)} is damaged: {plain(error)}") from error

    @property
    def clock(self) -> BagClock:
        """The clock steps in this recording, found at the first use."""
        if self._clock is None:
            stamped = {t.name for t in self.topics.values() if t.msgtype in STAMPED and t.msgtype not in self._unknown}
            found = ((c.topic, c.msgtype, arrived, data) for c, arrived, data in self._walk(stamped))
            self._clock = BagClock(found, self.decode)
        return self._clock

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, Any]]:
        """Topic, time of arrival [ns] and content of each message, in order of arrival; arrays are numpy's.

        Arrivals and header stamps are corrected for clock steps, see :mod:`timar_ros.bags.bag_clock`.

        :raises UserError: when a message does not fit its own type.
        """
        clock, counts = self.clock, Counter[str]()
        for connection, arrived, data in self._walk(topics):
            message = self.decode(connection.msgtype, data)
            if clock.stepped:
                number = counts[connection.topic]
                counts[connection.topic] += 1
                arrival_shift, stamp_shift = clock.shifts(connection.topic, number)
                arrived += arrival_shift
                if stamp_shift and hasattr(message, "header"):
                    stamp = message.header.stamp
                    moved = max(0, stamp.sec * 1_000_000_000 + stamp.nanosec + stamp_shift)
                    stamp.sec, stamp.nanosec = divmod(moved, 1_000_000_000)
            yield connection.topic, arrived, message

    def decode(self, msgtype: str, data: bytes) -> Any:
        """The message in some CDR bytes.

        :raises UserError: when the bytes do not fit the type.
        """
        if msgtype in self._unknown:
            raise UserError(f"{shown(self.path)}: {self._unknown[msgtype]}")
        try:
            return self._store.deserialize_cdr(data, msgtype)
        except (SerdeError, *READ_ERRORS) as error:
            raise UserError(
                f"{shown(self.path)}: a message is no {msgtype} as the bag describes it: {plain(error)}"
            ) from error

    def definition(self, topic: str) -> tuple[str, str]:
        """Text and RIHS01 hash of a topic's type, to write the same topic elsewhere unchanged."""
        msgtype = self.topics[topic].msgtype
        text, _ = self._store.generate_msgdef(msgtype, ros_version=2)
        return text, self._store.hash_rihs01(msgtype)

    def close(self) -> None:
        """Close the files. A second call does nothing."""
        with suppress(AssertionError):
            if not isinstance(self._reader, Reader) or self._reader.is_open:
                self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _of_a_parser(error: Exception) -> bool:
    """Whether a library that reads bags raises such an error on bytes that are not a bag's."""
    # Those of apsw, which rosbags imports where it is there, share no base class with the others.
    return isinstance(error, (ReaderError, *READ_ERRORS)) or type(error).__module__.split(".")[0] in _PARSERS


def _listed(reader: Reader, files: list[Path]) -> list[Path]:
    """The files in the order of metadata.yaml, if there is one."""
    storages = getattr(reader.storage, "storages", None) or [reader.storage]
    return [Path(str(storage.path)) for storage in storages] or files


def _check_chunks(reader: Reader) -> None:
    """Check the stated sizes of MCAP chunks against those of real recorders, before unpacking any.

    :raises ValueError: naming the size.
    """
    for storage in getattr(reader.storage, "storages", None) or [reader.storage]:
        chunks = getattr(storage, "chunks", ())
        largest = max((int(max(chunk.uncompressed_size, chunk.compressed_size)) for chunk in chunks), default=0)
        if largest > LARGEST_CHUNK:
            reader.close()
            raise ValueError(f"a chunk of {largest >> 20} MB; {LARGEST_CHUNK >> 20} are allowed")
