"""Bags that are none, are broken or hold something else: every command says so in one line and ends with 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import bag_factory as factory

from timar_ros.bags.bag_files import BagWriter
from timar_ros.cli.main import main

pytest.importorskip("torch")

COMMANDS = {
    "replay": ["replay", "{bag}", "--out", "{out}", "--model", "random-mini", "--quiet"],
    "evaluate": ["evaluate", "--bag", "{bag}"],
    "report": ["report", "{bag}", "--out", "{out}.html"],
    "data": ["data", "from-bag", "{bag}", "--out", "{out}"],
}


def strings(path: Path, topic: str) -> None:
    """A bag with a topic of text."""
    with BagWriter(path) as bag:
        bag.add_topic(topic, "std_msgs/msg/String")
        bag.write(topic, 1, bag.types["std_msgs/msg/String"](data="hello"))


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    good = next(factory.write_bag(folder / "good", 1.0).glob("*.mcap")).read_bytes()
    for name, data in {
        "nothing.mcap": b"",
        "magic.mcap": good[:10],
        "head.mcap": good[:3000],
        "half.mcap": good[: len(good) // 2],
        "noise.mcap": np.random.default_rng(0).bytes(50_000),
        "text.db3": b"this is no database\n" * 50,
        "old.bag": b"#ROSBAG V2.0\n" + bytes(4096),
    }.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    (folder / "metadata").mkdir()
    (folder / "metadata" / "metadata.yaml").write_bytes((folder / "good" / "metadata.yaml").read_bytes())
    strings(folder / "foreign", "/chatter")
    strings(folder / "text", "/user/audio")
    with BagWriter(folder / "silent") as bag:
        bag.add_topic("/user/audio", "timar_ros/msg/AudioChunk")
    return folder


NAMES = (
    "missing", "nothing.mcap", "magic.mcap", "head.mcap", "half.mcap", "noise.mcap", "text.db3",
    "old.bag", "folder", "metadata", "foreign", "text", "silent",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_one_line_and_2(bags: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        given = [part.format(bag=bags / name, out=tmp_path / name) for part in COMMANDS[command]]
        assert main(given) == 2, name
        said = capsys.readouterr().err
        assert said.startswith(f"timar {command}: error: "), (name, said)
        assert said.count("\n") == 1, (name, said)
        assert name in said, (name, said)
        assert not (tmp_path / f"{name}.html").exists()
