"""Where a command may write: one rule for all commands, checked before the work begins.

A command never overwrites its inputs, nor a file inside an input folder. It replaces an existing file only by one of
the same kind: a report by a report, motion by motion. It never replaces bags and robot profiles, which cannot be made
again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from timar_ros.errors import UserError
from timar_ros.files.reading import shown, sniff

# Detected types of a file with each ending; "" if the first bytes need not show the type.
_CONTENTS: Mapping[str, tuple[str, ...]] = {
    ".html": ("a web page",),
    ".json": ("a JSON text",),
    ".npz": ("a ZIP archive", "an empty ZIP archive"),
    ".svg": ("an XML document", "a web page", "a text", ""),
    ".csv": ("a text", ""),
    ".md": ("a text", ""),
    ".yaml": ("a text", ""),
    ".wav": ("a WAV file",),
    ".flac": ("a FLAC file",),
}
# Endings that define a file's type: no other type gets such a name.
_NAMED = frozenset(_CONTENTS) - {".md", ".svg"} | {
    *(".npy", ".mcap", ".db3", ".pth", ".pt", ".safetensors", ".urdf", ".xacro", ".mp3", ".ogg")
}


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are the same file, also through links; False if either is missing."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def check_output(path: str | os.PathLike[str], kind: str = "", inputs: Iterable[str | os.PathLike[str]] = ()) -> Path:
    """Check the path of an output file, and return it.

    :param kind: ending of the output's kind, as ".npz"; "": by the path's own ending.
    :param inputs: files and folders that the command reads.
    :raises UserError: when the path is an input or inside one, a folder, a file of another kind, or not writable.
    """
    target = Path(path)
    kind = kind or target.suffix.lower()
    if target.is_dir():
        raise UserError(f"cannot write {shown(target)}: it is a folder; give the name of a file")
    check_inputs_kept(target, inputs)
    ending = target.suffix.lower()
    if kind and ending != kind and ending in _NAMED and {ending, kind} != {".wav", ".flac"}:
        raise UserError(f"cannot write {shown(target)}: the name must end in {kind}")
    if target.exists():
        if not target.is_file():
            if target.is_char_device():  # /dev/null, /dev/stdout
                return target
            raise UserError(f"cannot write {shown(target)}: it is no ordinary file")
        found = sniff(target)
        allowed = _CONTENTS.get(kind)
        if allowed is not None and not found.startswith("empty") and not _is(found, allowed):
            what = found.split(":")[0].split(", not the")[0] or f"no {kind} file"
            raise UserError(f"{shown(target)} exists and is {what}: a {kind} does not replace it; choose another name")
    check_folder_writable(target.parent)
    return target


def _is(found: str, allowed: tuple[str, ...]) -> bool:
    return any(found == one or (one and found.startswith(one)) for one in allowed)


def check_folder(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> Path:
    """Check the path of an output folder, and return it.

    :raises UserError: when the path is a file, an input, or cannot be created or written to.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise UserError(f"cannot write into {shown(target)}: it is a file; give the name of a folder")
    check_inputs_kept(target, inputs)
    check_folder_writable(target)
    return target


def check_inputs_kept(target: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse a target that is an input, or a file in an input folder.

    :raises UserError: when the target is one; the error names both.
    """
    for each in inputs:
        source = Path(each)
        if same_file(target, source):
            raise UserError(f"{shown(target)} is an input of this command and is not overwritten; choose another name")
        if source.is_dir() and target.exists() and any(same_file(above, source) for above in target.absolute().parents):
            raise UserError(f"{shown(target)} lies in the input {shown(source)} and is not overwritten")


def check_folder_writable(folder: Path) -> None:
    """Check that files can be created in a folder, or the folder itself in its nearest existing parent.

    :raises UserError: when they cannot.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"cannot write into {shown(folder)}: {shown(existing)} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into {shown(folder)}: no permission in {shown(existing)}; choose another place")
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise UserError(
            f"cannot write into {shown(folder)}: {shown(existing)} is mounted read-only; choose another place"
        )
