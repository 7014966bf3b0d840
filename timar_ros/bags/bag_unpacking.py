"""Unpacking what is compressed in bags, by size: a few kilobytes can be said, or made, to hold gigabytes.

rosbags unpacks whatever comes. :func:`bound_rosbags` puts the functions of this file in the place of its own.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import lz4.frame
import rosbags.rosbag2.reader
import rosbags.rosbag2.storage_mcap
from rosbags.rosbag2.storage_mcap import zstd

LARGEST_CHUNK = 256 << 20
"""Most bytes of an unpacked chunk or message; `ros2 bag` writes chunks of less than 1 MB."""
MOST_TIMES = 200
"""A compressed file may unpack to so many times its size; recordings reach 10 at most."""


def unpack_zstd(data: bytes, largest: int = LARGEST_CHUNK) -> bytes:
    """The contents of a zstd frame.

    :raises ValueError: when they are larger than allowed, or end too early.
    """
    return _unpack(zstd.ZstdDecompressor(), data, largest)


def unpack_lz4(data: bytes, largest: int = LARGEST_CHUNK) -> bytes:
    """The contents of an LZ4 frame.

    :raises ValueError: when they are larger than allowed, or end too early.
    """
    return _unpack(lz4.frame.LZ4FrameDecompressor(), data, largest)


def _unpack(unpacker: Any, data: bytes, largest: int) -> bytes:
    unpacked = bytes(unpacker.decompress(data, max_length=largest + 1))
    if len(unpacked) > largest:
        raise ValueError(f"it unpacks to more than {largest} bytes")
    if not unpacker.eof:
        raise ValueError("its compressed data end too early")
    return unpacked


class _BoundedFile:
    """A zstd file that is read up to MOST_TIMES its size."""

    def __init__(self, packed: BinaryIO) -> None:
        self._file = zstd.ZstdFile(packed)
        self._left = MOST_TIMES * os.fstat(packed.fileno()).st_size + (1 << 20)

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        :raises ValueError: when the file unpacks to more than allowed.
        """
        data = self._file.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"a compressed file unpacks to more than {MOST_TIMES} times its size")
        return bytes(data)

    def __enter__(self) -> _BoundedFile:  # noqa: PYI034 (typing.Self needs 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _BoundedZstd:
    """What rosbags' reader uses of its module zstd."""

    @staticmethod
    def decompress(data: bytes) -> bytes:
        """A message."""
        return unpack_zstd(data)

    @staticmethod
    def open(packed: BinaryIO, _mode: str = "rb") -> _BoundedFile:
        """A file of messages."""
        return _BoundedFile(packed)


def bound_rosbags() -> None:
    """Let rosbags' readers unpack by size; a second call changes nothing. Writers stay as they are."""
    chunks: dict[str, Any] = rosbags.rosbag2.storage_mcap.DECOMPRESSORS
    chunks |= {"lz4": unpack_lz4, "zstd": unpack_zstd}
    vars(rosbags.rosbag2.reader)["zstd"] = _BoundedZstd
