"""Bags without ROS: round trips, hashes, salvage, and one clear line for every kind of bad bag."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import TOPICS, BagReader, BagWriter
from timar_ros.bags.bag_types import OURS, share_folders, typestore
from timar_ros.errors import UserError

RATE = 16000


def write_small(path: Path, **options: object) -> dict[str, list[bytes]]:
    """A bag with audio, motion and a latched topic; returns the CDR bytes by topic."""
    generator = np.random.default_rng(7)
    sent: dict[str, list[bytes]] = {}
    with BagWriter(path, **options) as bag:  # type: ignore[arg-type]
        for topic in ("user/audio", "agent/motion", "stream_info"):
            bag.add_topic(f"/{topic}", TOPICS[topic])
        types, store = bag.types, typestore()
        messages = [("/stream_info", 0, bag_messages.stream_info(types, 5, mode="reactive", seed=3))]
        for index in range(50):
            samples = generator.uniform(-1, 1, 320).astype(np.float32)
            chunk = bag_messages.audio_chunk(types, index * 20_000_000, index * 320, RATE, samples)
            messages.append(("/user/audio", index * 20_000_000 + 1000, chunk))
        frames = generator.normal(size=(25, 56)).astype(np.float32)
        messages.append(("/agent/motion", 1_000_000_000, bag_messages.flame_motion(types, 0, 25.0, frames, turn=4)))
        for topic, stamp, message in messages:
            data = bytes(store.serialize_cdr(message, message.__msgtype__))
            sent.setdefault(topic, []).append(data)
            bag.write_raw(topic, stamp, data)
    return sent


@pytest.mark.parametrize("options", [{}, {"compress": True}, {"storage": "sqlite3"}], ids=["mcap", "zstd", "sqlite3"])
def test_round_trip_is_byte_for_byte(tmp_path: Path, options: dict[str, object]) -> None:
    sent = write_small(tmp_path / "bag", **options)
    with BagReader(tmp_path / "bag") as bag:
        got: dict[str, list[bytes]] = {}
        for topic, _, data in bag.raw():
            got.setdefault(topic, []).append(data)
        assert got == sent
        assert {name: topic.count for name, topic in bag.topics.items()} == {n: len(m) for n, m in sent.items()}
        assert bag.salvaged is None


def test_mcap_own_reader_agrees(tmp_path: Path) -> None:
    from mcap.reader import make_reader

    sent = write_small(tmp_path / "bag")
    with (tmp_path / "bag" / "bag_0.mcap").open("rb") as stream:
        got: dict[str, list[bytes]] = {}
        for schema, channel, message in make_reader(stream).iter_messages():
            assert schema is not None and schema.encoding == "ros2msg"
            got.setdefault(channel.topic, []).append(message.data)
    assert got == sent


def test_message_conversions_return_what_went_in(tmp_path: Path) -> None:
    write_small(tmp_path / "bag")
    generator = np.random.default_rng(7)
    with BagReader(tmp_path / "bag") as bag:
        chunks = [m for _, _, m in bag.messages({"/user/audio"})]
        for chunk in chunks:
            expected = generator.uniform(-1, 1, 320).astype(np.float32)
            np.testing.assert_array_equal(bag_messages.samples_of(chunk)[:, 0], expected)
        (motion,) = [m for _, _, m in bag.messages({"/agent/motion"})]
        np.testing.assert_array_equal(
            bag_messages.frames_of(motion), generator.normal(size=(25, 56)).astype(np.float32)
        )
        assert motion.turn == 4


def test_unknown_parts_travel_as_empty_arrays() -> None:
    types = typestore().types
    frames = np.zeros((3, 56), np.float32)
    frames[:, :50] = np.nan
    message = bag_messages.flame_motion(types, 0, 25.0, frames)
    assert message.expression.size == 0 and message.jaw.size == 9
    np.testing.assert_array_equal(bag_messages.frames_of(message), frames)


def test_metadata_is_version_9_with_qos(tmp_path: Path) -> None:
    write_small(tmp_path / "bag")
    metadata = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["version"] == 9 and metadata["storage_identifier"] == "mcap"
    qos = {
        t["topic_metadata"]["name"]: t["topic_metadata"]["offered_qos_profiles"][0]
        for t in metadata["topics_with_message_count"]
    }
    assert qos["/stream_info"]["durability"] == "transient_local" and qos["/stream_info"]["reliability"] == "reliable"
    assert qos["/user/audio"]["durability"] == "volatile"


def test_type_hashes_are_rosidls_own() -> None:
    """Against the hashes that rosidl wrote when the interfaces were built."""
    folders = [s / "timar_ros" / "msg" for s in share_folders() if (s / "timar_ros" / "msg" / "Turn.json").is_file()]
    if not folders:
        pytest.skip("the interfaces are not built in this environment: no share/timar_ros/msg/Turn.json")
    for name in OURS:
        built = json.loads((folders[0] / f"{name}.json").read_text())
        hashes = {h["type_name"]: h["hash_string"] for h in built["type_hashes"]}
        assert typestore().hash_rihs01(f"timar_ros/msg/{name}") == hashes[f"timar_ros/msg/{name}"]


def test_read_with_an_empty_store(tmp_path: Path) -> None:
    """The bag describes itself: rosbags reads it knowing nothing of our types."""
    from rosbags.rosbag2 import Reader
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    write_small(tmp_path / "bag")
    store = get_typestore(Stores.EMPTY)
    with Reader(tmp_path / "bag") as reader:
        for connection in reader.connections:
            store.register(
                {
                    k: v
                    for k, v in get_types_from_msg(connection.msgdef.data, connection.msgtype).items()
                    if k not in store.fielddefs
                }
            )
        for connection, _, data in reader.messages(reader.connections):
            store.deserialize_cdr(data, connection.msgtype)


def test_find_in_any_namespace(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for name in ("/robot/user/audio", "/robot/turns"):
            bag.add_topic(name, TOPICS["user/audio"])
        bag.write("/robot/user/audio", 1, bag_messages.audio_chunk(bag.types, 1, 0, RATE, np.zeros(3)))
    with BagReader(tmp_path / "bag") as reader:
        assert reader.find("user/audio") == "/robot/user/audio"
        assert reader.find("turns") is None  # announced, never used
        assert reader.find("audio", "timar_ros/msg/Turn") is None


def test_two_namespaces_must_be_told_apart(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for name in ("/a/user/audio", "/b/user/audio"):
            bag.add_topic(name, TOPICS["user/audio"])
            bag.write(name, 1, bag_messages.audio_chunk(bag.types, 1, 0, RATE, np.zeros(3)))
    with BagReader(tmp_path / "bag") as reader, pytest.raises(UserError, match="several topics"):
        reader.find("user/audio")


REINDEXED = re.compile(r".+_[0-9]+\.[A-Za-z0-9]+")
"""What `ros2 bag reindex` takes for a recording's file: any text, an underscore, the file's number, a dot, letters and
digits. It orders the files by their numbers and opens each one by itself, sqlite's read-only."""


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_kill_9_leaves_a_readable_bag(tmp_path: Path, storage: str) -> None:
    script = textwrap.dedent("""
        import sys, time
        import numpy as np
        from timar_ros.bags import bag_messages
        from timar_ros.bags.bag_files import BagWriter
        bag = BagWriter(sys.argv[1], storage=sys.argv[2], flush_seconds=0.0)
        bag.add_topic("/user/audio", "timar_ros/msg/AudioChunk")
        for index in range(10**9):
            chunk = bag_messages.audio_chunk(bag.types, index, index * 160, 16000, np.full(160, index % 7, np.float32))
            bag.write("/user/audio", index, chunk)
            if index == 200:
                print("going", flush=True)
    """)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", script, str(tmp_path / "bag"), storage]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    assert process.stdout is not None and process.stdout.readline() == b"going\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (file,) = (path for path in (tmp_path / "bag").iterdir() if REINDEXED.fullmatch(path.name))
    if storage == "sqlite3":
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            assert database.execute("SELECT COUNT(*) FROM messages").fetchone()[0] >= 200
    with BagReader(tmp_path / "bag") as bag:
        assert (bag.salvaged is not None) == (storage == "mcap")
        indices = [message.sample_index for _, _, message in bag.messages()]
    assert len(indices) >= 200 and indices == list(range(0, 160 * len(indices), 160))


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_truncated_mcap_is_read_up_to_its_last_chunk(tmp_path: Path, keep: float) -> None:
    with BagWriter(tmp_path / "bag", flush_seconds=0.0) as bag:
        bag.add_topic("/user/audio", TOPICS["user/audio"])
        for index in range(300):
            bag.write("/user/audio", index, bag_messages.audio_chunk(bag.types, index, index, RATE, np.zeros(320)))
    file = tmp_path / "bag" / "bag_0.mcap"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with BagReader(tmp_path / "bag") as reader:
        count = len(list(reader.messages()))
        assert reader.salvaged and 0.5 * keep * 300 < count <= 300


def test_bad_bags_give_one_line(tmp_path: Path) -> None:
    write_small(tmp_path / "good")
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "junk.mcap").write_bytes(b"this is not an mcap file at all, not even nearly")
    (tmp_path / "junk.db3").write_bytes(b"this is not a database")
    (tmp_path / "nothing.mcap").write_bytes(b"")
    head = (tmp_path / "good" / "good_0.mcap").read_bytes()[:200]
    (tmp_path / "head.mcap").write_bytes(head)
    (tmp_path / "magic.mcap").write_bytes(head[:10])
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 9}")
    (tmp_path / "broken_yaml").mkdir()
    (tmp_path / "broken_yaml" / "metadata.yaml").write_text("a: [b")
    with BagWriter(tmp_path / "no_messages") as bag:
        bag.add_topic("/user/audio", TOPICS["user/audio"])
    sqlite3.connect(tmp_path / "foreign.db3").execute("create table t(x)").connection.close()
    names = (
        "missing",
        "empty_folder",
        "text.txt",
        "junk.mcap",
        "junk.db3",
        "nothing.mcap",
        "head.mcap",
        "magic.mcap",
        "yaml",
        "broken_yaml",
        "no_messages",
        "foreign.db3",
    )
    for name in names:
        with pytest.raises(UserError) as error:
            BagReader(tmp_path / name)
        assert "\n" not in str(error.value) and name in str(error.value), (name, str(error.value))


def test_message_that_is_not_its_type(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/user/audio", TOPICS["user/audio"])
        bag.write_raw("/user/audio", 1, b"\x00\x01\x00\x00garbage")
    with BagReader(tmp_path / "bag") as reader, pytest.raises(UserError, match="AudioChunk"):
        list(reader.messages())


def test_an_existing_bag_is_not_overwritten(tmp_path: Path) -> None:
    write_small(tmp_path / "bag")
    with pytest.raises(UserError, match="choose another path"):
        BagWriter(tmp_path / "bag")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_files_and_release_are_named_as_ros2_bag_names_them(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    with BagWriter(tmp_path / "talk", storage=storage) as writer:  # type: ignore[arg-type]
        writer.add_topic("/x", TOPICS["stream_info"])
        writer.write("/x", 1, bag_messages.stream_info(writer.types, 5, mode="reactive", seed=3))
    suffix = "mcap" if storage == "mcap" else "db3"
    # `ros2 bag reindex` knows a recording's files by their number.
    assert sorted(p.name for p in (tmp_path / "talk").iterdir()) == ["metadata.yaml", f"talk_0.{suffix}"]
    told = yaml.safe_load((tmp_path / "talk" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (told["ros_distro"], told["relative_file_paths"]) == ("jazzy", [f"talk_0.{suffix}"])
    with BagReader(tmp_path / "talk") as bag:
        assert len(list(bag.messages())) == 1
    assert b"ros_distro: rosbags" not in (tmp_path / "talk" / f"talk_0.{suffix}").read_bytes()
