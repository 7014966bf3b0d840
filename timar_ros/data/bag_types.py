"""Message types of bags without ROS: the definitions that rosbags knows, ours, and those of sourced workspaces."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from timar_ros.errors import UserError
from timar_ros.resources import share

OURS = ("AudioChunk", "FlameMotion", "RetargetInfo", "StreamInfo", "Turn")


def share_folders() -> list[Path]:
    """Places that may hold ``<package>/msg/*.msg``: the sourced workspaces, then this environment."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [prefix / "share" for prefix in (*prefixes, Path(sys.prefix))]


def definition_text(msgtype: str) -> str | None:
    """Text of ``package/msg/Name`` from this package's own checkout or an installed share folder; None if not found."""
    package, _, name = msgtype.split("/")
    # Our own texts come with the package; they win, for they are what the code was written for.
    own = [share("msg")] if package == "timar_ros" else []
    for folder in (*own, *(prefix / package / "msg" for prefix in share_folders())):
        path = folder / f"{name}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def register(store: Typestore, msgtype: str) -> None:
    """Add a type and all that it is made of to the store, from the .msg texts of sourced workspaces.

    :raises UserError: when a definition is nowhere to be found.
    """
    if msgtype in store.fielddefs:
        return
    text = definition_text(msgtype)
    if text is None:
        raise UserError(f"no definition of message type '{msgtype}' found: source the workspace that has it")
    types = get_types_from_msg(text, msgtype)
    for needed in _parts(types):
        if needed not in types:
            register(store, needed)
    store.register(types)


def _parts(types: dict[str, Any]) -> set[str]:
    """Names of the message types that the fields of ``types`` refer to."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, str) and node.count("/") == 2:
            found.add(node)
        elif isinstance(node, (tuple, list)):
            for part in node:
                visit(part)

    for _, fields in types.values():
        for _, kind in fields:
            visit(kind)
    return found


@functools.cache
def typestore() -> Typestore:
    """The types of ROS 2 Jazzy and of this package. Shared: callers that register foreign types take their own."""
    return new_typestore()


def new_typestore() -> Typestore:
    """A store of its own, to which foreign types may be added."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name in OURS:
        register(store, f"timar_ros/msg/{name}")
    return store
