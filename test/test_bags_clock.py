"""Bags in which clocks step: replay, report and conversion agree on the conversation without the step."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_clock import TURN, BagClock
from timar_ros.bags.bag_convert import from_bag
from timar_ros.bags.bag_files import TOPICS, BagReader, BagWriter
from timar_ros.bags.bag_foreign import AudioEvent, Inputs
from timar_ros.bags.recording import load_recording
from timar_ros.errors import UserError

NS = 1_000_000_000
START = 1_700_000_000 * NS
HOUR, YEAR = 3600 * NS, 31_557_600 * NS


def tone(at: int) -> np.ndarray:
    return (0.2 * np.sin(0.1 * np.arange(at * 640, (at + 1) * 640))).astype(np.float32)


def make(path: Path, step: int = 0, *, arrivals: int = 0, stray: int | None = None, storage: str = "mcap") -> Path:
    """3 s of two voices and a head; at 1.5 s the stamps step, and the recorder's clock by ``arrivals``."""
    with BagWriter(path, storage=storage) as bag:  # type: ignore[arg-type]
        for name in ("user/audio", "agent/audio", "user/motion"):
            bag.add_topic(f"/{name}", TOPICS[name])
        for k in range(75):
            at = START + k * NS // 25
            stamp = at + (step if k >= 37 else 0)
            if k == stray:
                stamp = at + 12 * YEAR
            come = at + NS // 25 + 200 + (arrivals if k >= 37 else 0)
            for role in ("user", "agent"):
                bag.write(f"/{role}/audio", come, bag_messages.audio_chunk(bag.types, stamp, k * 640, 16000, tone(k)))
            frames = np.full((1, 56), k, np.float32)
            bag.write("/user/motion", come, bag_messages.flame_motion(bag.types, stamp, 25.0, frames))
    return path


def heard(path: Path) -> list[int]:
    with BagReader(path) as bag:
        return [
            event.stamp_ns for event in Inputs(bag).events() if isinstance(event, AudioEvent) and event.role == "user"
        ]


@pytest.mark.parametrize(
    ("step", "recorder", "storage"),
    [
        (-5 * NS, False, "mcap"),
        (40 * NS, False, "mcap"),
        (HOUR, True, "mcap"),
        (-5 * NS, True, "mcap"),
        (-5 * NS, True, "sqlite3"),
        (10 * YEAR, False, "sqlite3"),
        (-50 * YEAR, True, "mcap"),
    ],
)
def test_a_step_is_cut_out_everywhere(tmp_path, step, recorder, storage):
    path = make(tmp_path / "bag", step, arrivals=step if recorder else 0, storage=storage)
    assert heard(path) == [START + k * NS // 25 for k in range(75)]
    recording = load_recording(path)
    assert recording.seconds == pytest.approx(3.0) and any("stepped" in line for line in recording.warnings)
    assert recording.user_audio is not None and recording.user_motion is not None
    assert np.allclose(recording.user_audio, np.concatenate([tone(k) for k in range(75)]), atol=1e-6)
    made = from_bag(path, tmp_path / "pair")
    assert made.seconds == 3.0 and not any("not wholly tracked" in note for note in made.notes)


def test_a_bag_without_steps_is_left_as_it_is(tmp_path):
    with BagReader(make(tmp_path / "bag")) as bag:
        list(bag.messages())
        assert not bag.clock.stepped and not bag.clock.warnings


def test_one_stray_stamp_is_put_where_it_was_due(tmp_path):
    recording = load_recording(make(tmp_path / "bag", stray=20))
    assert recording.seconds == pytest.approx(3.0)
    assert any("far from all others" in line for line in recording.warnings)


def test_two_clocks_that_never_agree_allocate_nothing(tmp_path):
    """Speakers on clocks that are decades apart from the first message on."""
    with BagWriter(tmp_path / "bag") as bag:
        for role, at in (("user", START), ("agent", START + 10 * YEAR)):
            bag.add_topic(f"/{role}/audio", TOPICS[f"{role}/audio"])
            bag.write(f"/{role}/audio", START, bag_messages.audio_chunk(bag.types, at, 0, 16000, tone(0)))
    with pytest.raises(UserError, match="different clocks"):
        load_recording(tmp_path / "bag")


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_turn_of_impossible_length_hinders_no_other_message(duration):
    message = SimpleNamespace(duration=duration, phase=0)
    header = b"\x00\x01\x00\x00" + struct.pack("<iI", 1, 0)
    made = BagClock([("/turns", TURN, 10**9, header)] * 2, lambda _kind, _data: message)
    assert made.warnings == []


def test_split_files_without_metadata_come_in_the_order_of_their_numbers(tmp_path):
    for storage, suffix in (("sqlite3", "db3"), ("mcap", "mcap")):
        folder = tmp_path / storage
        folder.mkdir()
        for number in range(12):
            with BagWriter(tmp_path / f"{storage}{number}", storage=storage) as bag:  # type: ignore[arg-type]
                bag.add_topic("/user/audio", TOPICS["user/audio"])
                at = START + number * NS // 25
                chunk = bag_messages.audio_chunk(bag.types, at, number * 640, 16000, tone(number))
                bag.write("/user/audio", at, chunk)
            (file,) = (tmp_path / f"{storage}{number}").glob(f"*.{suffix}")
            shutil.copy(file, folder / f"rec_{number}.{suffix}")
        with BagReader(folder) as bag:
            assert [m.sample_index // 640 for _, _, m in bag.messages()] == list(range(12))
            assert bag.salvaged is None and bag.topics["/user/audio"].count == 12
        assert load_recording(folder).seconds == pytest.approx(12 / 25)


def test_an_unrelated_definition_hinders_nothing(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/user/audio", TOPICS["user/audio"])
        bag.add_topic("/other", "weird_msgs/msg/Weird", msgdef="int32 ((\n= x", digest="RIHS01_" + "0" * 64)
        bag.write("/user/audio", START, bag_messages.audio_chunk(bag.types, START, 0, 16000, tone(0)))
        bag.write_raw("/other", START, b"\x00\x01\x00\x00\x01\x00\x00\x00")
    with BagReader(tmp_path / "bag") as bag:
        assert [m.sample_index for _, _, m in bag.messages({"/user/audio"})] == [0]
        with pytest.raises(UserError, match=r"weird_msgs/msg/Weird.*cannot be understood"):
            list(bag.messages({"/other"}))


def test_a_damaged_definition_of_our_own_type_is_replaced_by_ours(tmp_path):
    make(tmp_path / "bag")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    (tmp_path / "flipped.mcap").write_bytes(file.read_bytes().replace(b"Header header", b"Hea(er header"))
    assert load_recording(tmp_path / "flipped.mcap").seconds == pytest.approx(3.0)


def test_types_of_a_bag_without_definitions_come_from_the_sourced_workspace(tmp_path, monkeypatch):
    with BagWriter(tmp_path / "bag", storage="sqlite3") as bag:
        bag.add_topic(
            "/mic", "my_msgs/msg/Level", msgdef="std_msgs/Header header\nfloat32 level\n", digest="RIHS01_" + "0" * 64
        )
        bag.write_raw(
            "/mic",
            START,
            b"\x00\x01\x00\x00" + bytes(8) + b"\x01\x00\x00\x00\x00" + bytes(3) + np.float32(0.5).tobytes(),
        )
    (file,) = (tmp_path / "bag").glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM message_definitions")
    database.close()
    with BagReader(file) as reader, pytest.raises(UserError, match="source the workspace"):
        list(reader.messages())
    (tmp_path / "ws" / "share" / "my_msgs" / "msg").mkdir(parents=True)
    (tmp_path / "ws" / "share" / "my_msgs" / "msg" / "Level.msg").write_text("std_msgs/Header header\nfloat32 level\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "ws"))
    with BagReader(file) as reader:
        assert [m.level for _, _, m in reader.messages()] == [0.5]


def test_cut_off_is_said_only_when_it_was(tmp_path):
    make(tmp_path / "bag")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with BagReader(tmp_path / "bag") as whole:
        assert whole.salvaged is None and any("metadata" in note for note in whole.notes)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if len(data) > 1 << 20 else data[:-60])
    with BagReader(tmp_path / "bag") as torn:
        assert torn.salvaged and "end" in torn.salvaged
