"""Reading what is left of an MCAP recording that was cut off: no footer, no index, no metadata."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from mcap.exceptions import InvalidMagic, McapError
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2.metadata import parse_qos

from timar_ros.errors import UserError

_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}


class SalvageReader:
    """Front-to-back reader of MCAP files, with the part of rosbags' Reader interface that :class:`BagReader` uses.

    :raises UserError: when a file is no MCAP, or not one message can be had.
    """

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self.files = files
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
            raise UserError(f"nothing can be salvaged from the bag {path}: it ends before its first whole chunk")
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
                    offered_qos_profiles=parse_qos(channel.metadata.get("offered_qos_profiles", "")),
                ),
                owner=self,
            )
            for number, (channel, schema) in found.items()
        ]

    def _walk(self) -> Iterator[tuple[Path, Channel, Schema, Message]]:
        """Every whole message of every file, up to where each ends or breaks."""
        for path in self.files:
            schemas: dict[int, Schema] = {}
            channels: dict[int, Channel] = {}
            with path.open("rb") as stream:
                records = StreamReader(stream, record_size_limit=2**31).records
                while True:
                    try:
                        record = next(records)
                    except StopIteration:
                        break
                    except InvalidMagic as error:
                        if not channels:
                            raise UserError(f"{path} is not an MCAP file") from error
                        break
                    except (McapError, struct.error, ValueError, EOFError, OSError, MemoryError):
                        break  # the torn end: what came before it is good
                    if isinstance(record, Schema):
                        schemas[record.id] = record
                    elif isinstance(record, Channel):
                        channels[record.id] = record
                    elif isinstance(record, Message) and record.channel_id in channels:
                        channel = channels[record.channel_id]
                        if channel.message_encoding == "cdr" and channel.schema_id in schemas:
                            yield path, channel, schemas[channel.schema_id], record

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, time of arrival [ns] and CDR bytes of each message, in the order of the files."""
        wanted = {connection.id: connection for connection in connections}
        for _, channel, schema, message in self._walk():
            number = self._channels[(channel.topic, schema.name)]
            if number in wanted:
                yield wanted[number], message.log_time, message.data

    def close(self) -> None:
        """Nothing is held open between two walks."""
