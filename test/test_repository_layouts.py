"""The layouts in `config/` show what there is: topics and fields of our types, links of the robot.

`test_cli_demo.py` holds the Foxglove layout against the bag of a real run.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from support.layouts import foxglove, message_paths, rviz, split

from timar_ros.bags.bag_files import TOPICS
from timar_ros.bags.bag_types import typestore

KNOWN = {
    **{topic if topic.startswith("/") else f"/{topic}": kind for topic, kind in TOPICS.items()},
    "/robot_description": "std_msgs/msg/String",
}


@pytest.fixture
def layout(repository: Path) -> dict[str, Any]:
    return foxglove(repository)


def test_every_path_exists_in_our_types(layout: dict[str, Any]) -> None:
    store = typestore()
    count = 0
    for panel, path, _ in message_paths(layout):
        topic, steps = split(path)
        assert topic in KNOWN, (panel, topic)
        kind = KNOWN[topic]
        for field, index in steps:
            fields = dict(store.fielddefs[kind][1])
            assert field in fields, (panel, path)
            node, inner = fields[field]
            is_array = int(node) in (3, 4)
            assert is_array == bool(index), (panel, path)
            kind = inner[0][1][0] if is_array else inner[0]
        count += 1
    assert count > 15


def test_audio_motion_joints_and_diagnostics_are_shown(layout: dict[str, Any]) -> None:
    shown = {split(path)[0] for _, path, _ in message_paths(layout)}
    assert {"/user/audio", "/agent/audio", "/user/motion", "/agent/motion", "/joint_states", "/diagnostics"} <= shown


def test_the_layout_places_every_panel_once(layout: dict[str, Any]) -> None:
    def leaves(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else [*leaves(node["first"]), *leaves(node["second"])]

    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])


def test_both_show_links_that_the_robot_has(layout: dict[str, Any], repository: Path) -> None:
    root = ET.parse(repository / "urdf" / "timar_head.urdf").getroot()
    links = {link.get("name") for link in root.findall("link")}
    topics, frames = rviz(repository)
    assert topics == {"robot_description"}
    assert frames <= links
    assert len(frames) >= 3
    assert layout["configById"]["3D!head"]["followTf"] in links
