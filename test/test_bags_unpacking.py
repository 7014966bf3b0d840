"""What is compressed in bags is unpacked by size: a few kilobytes that hold gigabytes are refused."""

from __future__ import annotations

from pathlib import Path

import lz4.frame
import pytest
import rosbags.rosbag2.storage_mcap as rosbags_mcap
from rosbags.rosbag2.storage_mcap import zstd
from support.bag_factory import write_bag

from timar_ros.bags import bag_unpacking
from timar_ros.bags.bag_files import BagReader, BagWriter
from timar_ros.bags.bag_unpacking import bound_rosbags, unpack_lz4, unpack_zstd
from timar_ros.bags.recording import load_recording
from timar_ros.errors import UserError

BOMB = bytes(64 << 20)


@pytest.mark.parametrize(("unpack", "pack"), [(unpack_zstd, zstd.compress), (unpack_lz4, lz4.frame.compress)])
def test_frames_are_unpacked_up_to_their_size(unpack, pack):
    data = bytes(range(256)) * 100
    assert unpack(pack(data), len(data)) == data
    with pytest.raises(ValueError, match="more than 25599 bytes"):
        unpack(pack(data), len(data) - 1)
    with pytest.raises(ValueError, match="too early"):
        unpack(pack(data)[:-5], len(data))
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        unpack(pack(BOMB), 1000)


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_chunk_that_lies_about_its_size_is_refused_by_rosbags_too(kind):
    bound_rosbags()
    pack = {"zstd": zstd.compress, "lz4": lz4.frame.compress}[kind]
    with pytest.raises(ValueError, match="more than 100 bytes"):
        rosbags_mcap.decompress(pack(BOMB), kind, 100, 0)
    assert rosbags_mcap.decompress(pack(b"abc"), kind, 3, 0) == b"abc"


def test_a_compressed_file_is_refused_before_it_fills_the_disk(tmp_path: Path, monkeypatch):
    write_bag(tmp_path / "bag", seconds=1.0)
    metadata = tmp_path / "bag" / "metadata.yaml"
    text = metadata.read_text().replace("compression_mode: ''", "compression_mode: FILE")
    text = text.replace("compression_format: ''", "compression_format: zstd")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    metadata.write_text(text.replace(file.name, f"{file.name}.zstd"))
    assert "FILE" in metadata.read_text() and "zstd" in metadata.read_text()
    packed = file.with_name(f"{file.name}.zstd")
    packed.write_bytes(zstd.compress(file.read_bytes()))
    expected = load_recording(file).user_audio
    file.unlink()
    with BagReader(tmp_path / "bag") as reader:
        assert sum(topic.count for topic in reader.topics.values()) > 10
    assert (load_recording(tmp_path / "bag").user_audio == expected).all()
    packed.write_bytes(zstd.compress(BOMB))
    with pytest.raises(UserError, match="200 times its size"):
        BagReader(tmp_path / "bag")


def test_a_compressed_message_is_unpacked_by_size(tmp_path: Path, monkeypatch):
    with BagWriter(tmp_path / "bag", storage="sqlite3", compress=True) as writer:
        writer.add_topic("/robot_description", "std_msgs/msg/String")
        writer.write("/robot_description", 1, writer.types["std_msgs/msg/String"]("x" * 500_000))
    with BagReader(tmp_path / "bag") as reader:
        ((_, _, message),) = reader.messages()
        assert len(message.data) == 500_000
    monkeypatch.setattr(bag_unpacking.unpack_zstd, "__defaults__", (100_000,))
    with pytest.raises(UserError, match="more than 100000 bytes"), BagReader(tmp_path / "bag") as reader:
        list(reader.messages())
