"""The files of one recording, read in order without metadata.yaml."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from timar_ros.bags.bag_unpacking import unpack_zstd

BAG_FILES = (".mcap", ".db3")
_ZSTD = b"\x28\xb5\x2f\xfd"


def split_files(folder: Path) -> list[Path]:
    """The bag files of a folder by the numbers in their names: rec_2 before rec_10; of two storages the fuller one."""
    kinds: list[list[Path]] = [
        [file for file in folder.iterdir() if file.suffix == kind and file.is_file()] for kind in BAG_FILES
    ]
    fuller = kinds[0] if len(kinds[0]) >= len(kinds[1]) else kinds[1]
    return sorted(fuller, key=natural)


def natural(path: Path) -> list[Any]:
    """A sort key for names with numbers: 2 before 10."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", path.name) if part]


class SplitReader:
    """Several sqlite3 files (or one), each in the order of its writing, as one recording.

    Messages come in the order of writing, which equals the order of arrival even if the recorder's clock stepped. The
    class has the part of rosbags' Reader interface that :class:`BagReader` uses.

    :raises ReaderError: when a file cannot be read.
    """

    def __init__(self, files: list[Path]) -> None:
        self._readers: list[tuple[Reader, Sqlite3Reader]] = []
        try:
            for file in files:
                reader = Reader(file)
                reader.open()
                assert isinstance(reader.storage, Sqlite3Reader)
                self._readers.append((reader, reader.storage))
        except BaseException:
            self.close()
            raise
        merged: dict[tuple[str, str], Connection] = {}
        for _, storage in self._readers:
            for one in storage.connections:
                known = merged.get((one.topic, one.msgtype))
                number, count = (len(merged) + 1, 0) if known is None else (known.id, known.msgcount)
                described = one if known is None or not known.msgdef.data else known
                merged[one.topic, one.msgtype] = described._replace(id=number, msgcount=count + one.msgcount)
        self.connections = list(merged.values())
        filled = [reader for reader, storage in self._readers if storage.metadata.message_count]
        self.start_time = min((reader.start_time for reader in filled), default=2**63 - 1)
        self.end_time = max((reader.end_time for reader in filled), default=0)

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, time of arrival [ns] and CDR bytes of each message, in the order of the files."""
        wanted = {(connection.topic, connection.msgtype): connection for connection in connections}
        for _, storage in self._readers:
            numbers = {c.id: wanted[c.topic, c.msgtype] for c in storage.connections if (c.topic, c.msgtype) in wanted}
            if not numbers or storage.dbconn is None:
                continue
            marks = ",".join("?" * len(numbers))
            query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) ORDER BY id"  # noqa: S608
            for number, stamp, data in storage.dbconn.execute(query, tuple(numbers)):
                yield numbers[int(number)], int(stamp), _unpacked(bytes(data))

    def close(self) -> None:
        """Close the files."""
        for reader, _ in self._readers:
            reader.close()
        self._readers = []


def _unpacked(data: bytes) -> bytes:
    """Unpack a message with its own compression; only metadata.yaml states it, but no CDR message begins like that."""
    if data[:4] != _ZSTD:
        return data
    return unpack_zstd(data)


def steps_back(reader: Reader, limit_ns: int) -> bool:
    """Whether times of arrival go back by more than ``limit_ns`` in the order of writing, as after a clock step."""
    storages = getattr(reader.storage, "storages", None) or [reader.storage]
    latest: int | None = None
    for storage in storages:
        if isinstance(storage, Sqlite3Reader):
            spans = [(int(t), int(t)) for (t,) in storage.dbconn.execute("SELECT timestamp FROM messages ORDER BY id")]
        else:
            chunks = sorted(getattr(storage, "chunks", ()), key=lambda chunk: chunk.chunk_start_offset)
            # The index lacks the order within a chunk: read through a recording of one chunk.
            if len(chunks) <= 1:
                return True
            spans = [(int(chunk.message_start_time), int(chunk.message_end_time)) for chunk in chunks]
        for first, last in spans:
            if latest is not None and first < latest - limit_ns:
                return True
            latest = last if latest is None else max(latest, last)
    return False
