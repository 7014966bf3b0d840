"""The Foxglove layout shows what a bag of ours holds: every path is a topic and a field that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from timar_ros.data.bag_types import typestore
from timar_ros.data.bags import TOPICS

KNOWN = {topic if topic.startswith("/") else f"/{topic}": kind for topic, kind in TOPICS.items()}


@pytest.fixture
def layout(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "config" / "foxglove" / "timar.json").read_text(encoding="utf-8"))


def test_every_plotted_path_exists(layout: dict[str, Any]) -> None:
    store = typestore()
    count = 0
    for name, config in layout["configById"].items():
        for path in config.get("paths", []):
            topic, _, field = path["value"].partition(".")
            assert topic in KNOWN, (name, topic)
            field = re.sub(r"\[.*\]$", "", field)
            assert field in {entry for entry, _ in store.fielddefs[KNOWN[topic]][1]}, (name, path["value"])
            count += 1
    assert count > 10


def test_audio_motion_joints_and_diagnostics_are_shown(layout: dict[str, Any]) -> None:
    text = json.dumps(layout["configById"])
    for topic in ("/user/audio", "/agent/audio", "/user/motion", "/agent/motion", "/joint_states", "/diagnostics"):
        assert topic in text


def test_the_layout_places_every_panel_once(layout: dict[str, Any]) -> None:
    def leaves(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else [*leaves(node["first"]), *leaves(node["second"])]

    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])
