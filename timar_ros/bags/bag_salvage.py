"""Reading MCAP files from front to back: without footer, index or metadata, and in the order of writing."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from mcap.exceptions import EndOfFile, InvalidMagic, McapError
from mcap.records import Channel, Chunk, Footer, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.metadata import parse_qos

from timar_ros.bags.bag_unpacking import LARGEST_CHUNK, unpack_lz4, unpack_zstd
from timar_ros.errors import UserError
from timar_ros.files.reading import READ_ERRORS, plain

_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}
_UNPACK = {"zstd": unpack_zstd, "lz4": unpack_lz4}


def check_records(path: Path) -> None:
    """Hold what the records of an MCAP file say of their lengths against the file, before a parser allocates them.

    With an index only what the index is read from is looked at, else every record.

    :raises ValueError: a record is said to be longer than the file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:

        def step(at: int) -> int:
            stream.seek(at)
            head = stream.read(9)
            length = int.from_bytes(head[1:], "little") if len(head) == 9 else 0
            if at + 9 + length > size:
                raise ValueError(f"a record at byte {at} is said to have {length} bytes; the file ends before that")
            return at + 9 + length

        at = step(8)
        stream.seek(max(0, size - 28))
        summary = int.from_bytes(stream.read(8), "little")
        if summary:
            at = summary
        while at < size - 8:
            at = step(at)


class SalvageReader:
    """Front-to-back reader of MCAP files, with the part of rosbags' Reader interface that :class:`BagReader` uses.

    :raises UserError: when a file is no MCAP, or no message is readable.
    """

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self.files = files
        self.torn: str | None = None
        """Where and how the files break off; None: all files are complete."""
        self.start_time = 2**63 - 1
        self.end_time = 0
        counts: dict[int, int] = {}
        self._channels: dict[tuple[str, str], int] = {}
        found: dict[int, tuple[Channel, Schema]] = {}
        for _, channel, schema, message in self._walk():
            number = self._channels.setdefault((channel.topic, schema.name), len(self._channels) + 1)
            found.setdefault(number, (channel, schema))
            counts[number] = counts.get(number, 0) + 1
            self.start_time = min(self.start_time, message.log_time)
            self.end_time = max(self.end_time, message.log_time + 1)
        if not found:
            raise UserError(
                f"nothing can be salvaged from the bag {path}: {self.torn}"
                if self.torn
                else f"the bag {path} is empty: it holds no ROS message"
            )
        self.connections = [
            Connection(
                id=number,
                topic=channel.topic,
                msgtype=schema.name,
                msgdef=MessageDefinition(
                    _FORMATS.get(schema.encoding, MessageDefinitionFormat.NONE),
                    schema.data.decode("utf-8", errors="replace"),
                ),
                digest="",
                msgcount=counts[number],
                ext=ConnectionExtRosbag2(
                    serialization_format="cdr",
                    offered_qos_profiles=_qos(channel),
                ),
                owner=self,
            )
            for number, (channel, schema) in found.items()
        ]

    def _walk(self) -> Iterator[tuple[Path, Channel, Schema, Message]]:
        """Every whole message of every file, up to the file's end or damage."""
        for path in self.files:
            schemas: dict[int, Schema] = {}
            channels: dict[int, Channel] = {}
            ended = False
            with path.open("rb") as stream:
                records = StreamReader(stream, emit_chunks=True, record_size_limit=LARGEST_CHUNK).records
                while True:
                    try:
                        record = next(records)
                        parts = [record] if not isinstance(record, Chunk) else _unpacked(record)
                    except StopIteration:
                        break
                    except InvalidMagic as error:
                        if not channels:
                            raise UserError(f"{path} is not an MCAP file") from error
                        break
                    except (McapError, *READ_ERRORS) as error:
                        # The torn end: earlier messages are good.
                        self.torn = (
                            f"{path.name} ends in the middle of a record"
                            if isinstance(error, (EndOfFile, EOFError, struct.error))
                            else f"{path.name} is damaged ({plain(error)})"
                        )
                        ended = True
                        break
                    for part in parts:
                        if isinstance(part, Schema):
                            schemas[part.id] = part
                        elif isinstance(part, Channel):
                            channels[part.id] = part
                        elif isinstance(part, Footer):
                            ended = True
                        elif isinstance(part, Message) and part.channel_id in channels:
                            channel = channels[part.channel_id]
                            if channel.message_encoding == "cdr" and channel.schema_id in schemas:
                                yield path, channel, schemas[channel.schema_id], part
            if not ended:
                self.torn = f"{path.name} has no end"

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, time of arrival [ns] and CDR bytes of each message, in the order of the files."""
        wanted = {connection.id: connection for connection in connections}
        for _, channel, schema, message in self._walk():
            number = self._channels[(channel.topic, schema.name)]
            if number in wanted:
                yield wanted[number], message.log_time, message.data

    def close(self) -> None:
        """No file stays open between two walks."""


def _unpacked(chunk: Chunk) -> list[Schema | Channel | Message]:
    """A chunk's records.

    :raises ValueError: when its stated size exceeds that of any recorder's chunks.
    """
    if chunk.uncompressed_size > LARGEST_CHUNK:
        raise ValueError(f"a chunk of {chunk.uncompressed_size >> 20} MB; {LARGEST_CHUNK >> 20} are allowed")
    if unpack := _UNPACK.get(chunk.compression):
        chunk.data, chunk.compression = unpack(chunk.data, chunk.uncompressed_size), ""
    return [part for part in breakup_chunk(chunk) if isinstance(part, (Schema, Channel, Message))]


def _qos(channel: Channel) -> list[object]:
    """The offered QoS; empty if it is unreadable, since only a copy of the bag needs it."""
    try:
        return list(parse_qos(channel.metadata.get("offered_qos_profiles", "")))
    except (ReaderError, *READ_ERRORS):
        return []
