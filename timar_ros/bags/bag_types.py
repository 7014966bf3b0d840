"""Message types of bags without ROS: definitions from rosbags, from this package and from sourced workspaces."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from timar_ros.errors import UserError
from timar_ros.files.reading import READ_ERRORS, plain
from timar_ros.resources import share

OURS = ("AudioChunk", "FlameMotion", "RetargetInfo", "StreamInfo", "Turn")


def share_folders() -> list[Path]:
    """Places that may hold ``<package>/msg/*.msg``: the sourced workspaces, then this environment."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [prefix / "share" for prefix in (*prefixes, Path(sys.prefix))]


def definition_text(msgtype: str) -> str | None:
    """Text of ``package/msg/Name`` from this package's own checkout or an installed share folder; None if not found."""
    package, _, name = msgtype.split("/") if msgtype.count("/") == 2 else ("", "", "")
    if not package or ".." in package or ".." in name:
        return None
    # The package's own texts have priority: the code was written for them.
    own = [share("msg")] if package == "timar_ros" else []
    for folder in (*own, *(prefix / package / "msg" for prefix in share_folders())):
        path = folder / f"{name}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return None


def register(store: Typestore, msgtype: str) -> None:
    """Add a type and its parts to the store, from the .msg texts of sourced workspaces.

    :raises UserError: when a definition is missing.
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


def store_of(connections: Collection[Connection]) -> tuple[Typestore, dict[str, str]]:
    """The types as a bag describes them; other types from this package or the sourced workspaces.

    :returns: the store, and the reasons for unreadable types by name. An unknown type affects no other topic.
    """
    described: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    named = dict.fromkeys(connection.msgtype for connection in connections)
    for connection in connections:
        kind, text = connection.msgdef.format, connection.msgdef.data
        try:
            if kind == MessageDefinitionFormat.MSG:
                described.update(_checked(get_types_from_msg(text, connection.msgtype), connection.msgtype))
            elif kind == MessageDefinitionFormat.IDL:
                described.update(_checked(get_types_from_idl(text), connection.msgtype))
        except (TypesysError, *READ_ERRORS) as error:
            reasons[connection.msgtype] = f"its definition in the bag cannot be understood ({plain(error)})"
    known = new_typestore()
    clashing = {name for name, fields in described.items() if known.fielddefs.get(name, fields) != fields}
    if not clashing:
        known.register({name: fields for name, fields in described.items() if name not in known.fielddefs})
        store = known
    else:
        # A bag may have other definitions under the same names: the bag's own definitions count.
        store = get_typestore(Stores.EMPTY)
        store.register(dict(known.fielddefs) | described)
    unknown: dict[str, str] = {}
    for msgtype in named:
        if msgtype in described:
            continue
        try:
            register(store, msgtype)
        except (UserError, TypesysError, *READ_ERRORS) as error:
            why = reasons.get(msgtype, "the bag does not describe it")
            unknown[msgtype] = f"message type '{msgtype}' is not known: {why}; {plain(error)}"
    return store, unknown


def _checked(types: dict[str, Any], msgtype: str) -> dict[str, Any]:
    """Types of one complete definition.

    :raises ValueError: when the definition lacks the type itself or a part.
    """
    known = typestore().fielddefs
    missing = sorted(name for name in {msgtype, *_parts(types)} if name not in types and name not in known)
    if missing:
        raise ValueError(f"it does not define {', '.join(missing)}")
    return types


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
    """The types of ROS 2 Jazzy and of this package. Shared: callers that register foreign types need their own."""
    return new_typestore()


def new_typestore() -> Typestore:
    """A new store, to which foreign types may be added."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name in OURS:
        register(store, f"timar_ros/msg/{name}")
    return store
