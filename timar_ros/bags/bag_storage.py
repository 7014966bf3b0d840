"""Bags with the file names of `ros2 bag`, so that `ros2 bag reindex` can repair an incomplete one."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionMode
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

# rosbags' text in place of the release.
_OWN = "rosbags"


def _release() -> str:
    return os.environ.get("ROS_DISTRO", "unknown")


def _first(path: Path) -> Path:
    """NAME_0.mcap for NAME.mcap: the first file of a recording, which reindex expects."""
    return path.rename(path.with_name(f"{path.stem}_0{path.suffix}"))


def _with_release(metadata: str) -> str:
    return metadata.replace(f"ros_distro: {_OWN}", f"ros_distro: {_release()}")


class _Mcap(McapWriter):
    path: Path

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        self.path = _first(self.path)

    def close(self, version: int, metadata: str) -> None:
        super().close(version, _with_release(metadata))


class _Sqlite3(Sqlite3Writer):
    path: Path
    conn: sqlite3.Connection
    cursor: sqlite3.Cursor

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        # Close before renaming: sqlite finds a database's journal by the name at opening.
        self.cursor.execute("UPDATE schema SET ros_distro = ?", (_release(),))
        self.conn.commit()
        self.conn.close()
        self.path = _first(self.path)
        self.conn = sqlite3.connect(self.path)
        self.cursor = self.conn.cursor()

    def close(self, version: int, metadata: str) -> None:
        super().close(version, _with_release(metadata))


class BagFolderWriter(Writer):
    """rosbags' Writer, with the file names and the release of `ros2 bag`."""

    STORAGE_PLUGINS = {StoragePlugin.MCAP: _Mcap, StoragePlugin.SQLITE3: _Sqlite3}  # noqa: RUF012 (as in the base)

    def close(self) -> None:
        """Close the storage, and write metadata.yaml."""
        super().close()
        temporary = self.metapath.with_suffix(".yaml.tmp")
        temporary.write_text(_with_release(self.metapath.read_text("utf8")), "utf8")
        temporary.replace(self.metapath)
