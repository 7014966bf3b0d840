"""What the layouts in `config/` ask of a recording: topics, fields and elements of them, frames."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PATH = re.compile(r"(?P<topic>/[\w/]+)(?P<fields>(?:\.\w+(?:\[(?:\d+|:)\])?)*)")
STEP = re.compile(r"\.(\w+)(?:\[(\d+|:)\])?")


def foxglove(repository: Path) -> dict[str, Any]:
    """The Foxglove layout."""
    return json.loads((repository / "config" / "foxglove" / "timar.json").read_text(encoding="utf-8"))


def message_paths(layout: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Panel, message path and label of everything that the layout shows (a path without fields is a whole topic)."""
    for name, config in layout["configById"].items():
        for path in config.get("paths", []):
            yield name, path["value"], path["label"]
        for topic in config.get("topics", {}):
            yield name, topic, ""
        for key in ("topicToRender", "topicPath"):
            if config.get(key):
                yield name, config[key], ""


def split(path: str) -> tuple[str, list[tuple[str, str]]]:
    """Topic, and the fields with their index ("" for none) of a message path."""
    found = PATH.fullmatch(path)
    assert found is not None, f"{path} is no message path"
    return found["topic"], STEP.findall(found["fields"])


def value_at(message: Any, steps: list[tuple[str, str]]) -> Any:
    """What a path's fields hold in a message.

    :raises AttributeError, IndexError: when the message has no such field or element.
    """
    for field, index in steps:
        message = getattr(message, field)
        if index and index != ":":
            message = message[int(index)]
    return message


def rviz(repository: Path) -> tuple[set[str], set[str]]:
    """Topics and frames that the RViz configuration names."""
    manager = yaml.safe_load((repository / "config" / "rviz" / "timar_head.rviz").read_text(encoding="utf-8"))[
        "Visualization Manager"
    ]
    topics: set[str] = set()
    frames = {manager["Global Options"]["Fixed Frame"]}
    for display in manager["Displays"]:
        topics |= {display[key]["Value"] for key in display if key.endswith("Topic") and isinstance(display[key], dict)}
        links = display.get("Links", {})
        frames |= {name for name, options in links.items() if isinstance(options, dict)}
    return topics, frames
