"""Detects a file's real type by its first bytes, and turns readers' failures into one clear line.

Every reader of the package uses :func:`reading`: one complete list of the parsers' exceptions, one set of reasons. A
file's declared size is checked before any allocation.
"""

from __future__ import annotations

import json
import lzma
import os
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy_format

from timar_ros.errors import UserError

READ_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    RuntimeError,  # NotImplementedError and RecursionError, too
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""Exceptions of the parsers of sound, arrays, XML, YAML, JSON, bags and weights for bytes of another format."""

LARGEST_ARRAY = 1 << 30
"""Largest size of a motion file's arrays [bytes]: more than 24 hours of 56 doubles at 25 Hz."""
LARGEST_TEXT = 64 << 20
"""Largest size of a description (URDF, YAML, JSON) [bytes]."""

# Position, first bytes, and file type. Placeholders come first: the real file must still be fetched.
_LFS = "a Git LFS pointer, not the file itself: run `git lfs pull`"
_PAGE = "a web page, not the file itself: the download was answered by a page (a login, a preview); download it again"
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", _LFS),
    (0, b"/annex/objects/", "a git-annex pointer, not the file itself: run `git annex get`"),
    (0, b"../.git/annex", "a git-annex link, not the file itself: run `git annex get`"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "an empty ZIP archive"),
    (0, b"\x89MCAP0\r\n", "an MCAP bag"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"#ROSBAG V", "a ROS 1 bag: convert it with `rosbags-convert`"),
    (8, b"WAVE", "a WAV file"),
    (8, b"AVI ", "an AVI film"),
    (0, b"fLaC", "a FLAC file"),
    (0, b"OggS", "an Ogg file"),
    (0, b"ID3", "an MP3 file"),
    (4, b"ftyp", "an MP4 or M4A file: convert it with `ffmpeg -i FILE FILE.wav`"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file: convert it with `ffmpeg -i FILE FILE.wav`"),
    (0, b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (0, b"BZh", "bzip2-compressed: unpack it first"),
    (0, b"\xfd7zXZ\x00", "xz-compressed: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (0, b"Rar!", "a RAR archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"MATLAB", "a MATLAB file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"\x80\x02", "a pickle"),
    (0, b"\x80\x03", "a pickle"),
    (0, b"\x80\x04", "a pickle"),
    (0, b"\x80\x05", "a pickle"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<!-- ")


def sniff(path: str | os.PathLike[str]) -> str:
    """A file's type in words, by its first bytes; "" for an unknown type.

    :raises OSError: when the file cannot be opened.
    """
    with Path(path).open("rb") as file:
        begin = file.read(4096)
    if not begin:
        return "empty (0 bytes)"
    if not begin.strip(b"\x00"):
        return "nothing but zeros: it was not written out, or its download broke off"
    for at, mark, what in _KINDS:
        if begin[at : at + len(mark)] == mark:
            return what
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:14].lower().startswith(_PAGES) or b"<html" in text[:1024].lower():
        return _PAGE
    if text.startswith(b"<?xml"):
        return "an XML document"
    if text.startswith((b"{", b"[")) and begin.isascii():
        return "a JSON text"
    if begin[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "a text in UTF-16"
    if begin.isascii() and not any(byte < 9 for byte in begin):
        return "a text"
    return ""


def placeholder(path: str | os.PathLike[str]) -> str:
    """The type of a placeholder for a missing file: an LFS pointer, a web page, an empty file; "" for a real file."""
    try:
        what = sniff(path)
    except OSError:
        return ""
    missing = what.startswith(("a Git LFS", "a git-annex", "a web page", "empty", "nothing but zeros"))
    return what if missing else ""


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """The path of an existing file with contents.

    :param what: the kind of file, as "audio file".
    :raises UserError: when the path is missing, a folder, a device, or a placeholder.
    """
    file = Path(path)
    try:
        found, regular = file.exists(), file.is_file()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot open {what} {shown(path)}: {error}") from error
    if not regular:
        raise UserError(f"{what} {shown(file)} not found" if not found else f"{shown(file)} is not a file")
    if reason := placeholder(file):
        raise UserError(f"{what} {shown(file)} is {reason}")
    return file


@contextmanager
def reading(path: str | os.PathLike[str], what: str, instead: str) -> Iterator[None]:
    """Turn a parser's exception into one line that names the file's real type.

    :param what: the attempted format: "as audio".
    :param instead: advice: "give a WAV, FLAC, OGG or MP3 file".
    :raises UserError: for every error of ``READ_ERRORS`` in the block.
    """
    try:
        yield
    except READ_ERRORS as error:
        try:
            found = sniff(path)
        except (OSError, ValueError):
            found = ""
        own = found.startswith(("a WAV", "a FLAC", "an Ogg", "an MP3", "a ZIP", "a NumPy"))
        reason = f"it is {found}" if found and not own else plain(error)
        if isinstance(error, MemoryError):
            reason = "it needs more memory than this machine has"
        if isinstance(error, (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError)):
            reason = f"{found or 'it'} that is damaged or packed in a way that Python cannot unpack ({plain(error)})"
        raise UserError(f"cannot read {shown(path)} {what} ({reason}); {instead}") from error


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """A text file in UTF-8 (with or without mark) or UTF-16.

    :raises UserError: when the file is missing, too large or in another encoding.
    """
    file = existing_file(path, what)
    try:
        if file.stat().st_size > LARGEST_TEXT:
            raise UserError(f"{what} {shown(file)} has {file.stat().st_size >> 20} MB: too large for a description")
        data = file.read_bytes()
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {what} {shown(file)}: {plain(error)}; save it in UTF-8") from error


def read_yaml(path: str | os.PathLike[str], what: str) -> Any:
    """The plain values of a YAML file.

    :param what: the kind of file, as "robot profile".
    :raises UserError: when it is missing, too large or no valid YAML.
    """
    import yaml

    text = read_text(path, what)
    # Also dates and numbers that Python has not, and deep nesting.
    errors: tuple[type[Exception], ...] = (yaml.YAMLError, *READ_ERRORS)
    try:
        return yaml.safe_load(text)
    except errors as error:
        raise UserError(f"cannot read {what} {shown(path)}: no valid YAML ({plain(error)})") from error


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """The plain values of a JSON file.

    :param what: the kind of file, as "model description".
    :raises UserError: when it is missing, too large or no valid JSON.
    """
    text = read_text(path, what)
    try:
        return json.loads(text)
    except READ_ERRORS as error:
        raise UserError(f"cannot read {what} {shown(path)}: no valid JSON ({plain(error)})") from error


HEADER_LENGTHS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
"""Versions of the .npy format, with the bytes of their header's length."""

LARGEST_HEADER = 1 << 16
"""Largest header of an array [bytes]; NumPy would allocate as much as the file declares, up to 4 GiB."""


def check_arrays(path: str | os.PathLike[str], largest: int = LARGEST_ARRAY) -> None:
    """Check the declared sizes of a .npy or .npz against its real size, before any allocation.

    :raises ValueError: when a declared array is larger than allowed or than its data.
    :raises zipfile.BadZipFile: for a damaged archive.
    """
    file = Path(path)
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            if stream.read(6) == b"\x93NUMPY":
                stream.seek(0)
                _check_array(stream, file.stat().st_size, largest, "its array")
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > largest:
            raise ValueError(
                f"unpacked it has {sum(m.file_size for m in members) >> 20} MB; {largest >> 20} MB are allowed"
            )
        for member in members:
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    _check_array(stream, member.file_size, largest, f"array {member.filename[:-4]}")


def _check_array(stream: IO[bytes], size: int, largest: int, what: str) -> None:
    version = npy_format.read_magic(stream)
    width = HEADER_LENGTHS.get(version)
    if width is None:
        raise ValueError(f"{what} is of the unknown NumPy format {'.'.join(map(str, version))}")
    begin = stream.tell()
    length = int.from_bytes(stream.read(width), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"{what} declares a header of {length} bytes")
    stream.seek(begin)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(stream)
    count = 1
    for length in shape:
        count *= int(length)
    if dtype.hasobject:
        raise ValueError(f"{what} contains Python objects, not numbers")
    if count < 0 or count * dtype.itemsize > largest:
        raise ValueError(f"{what} has the declared shape {tuple(shape)}: more than {largest >> 20} MB")
    if count * dtype.itemsize > size:
        raise ValueError(f"{what} has the declared shape {tuple(shape)}, but fewer data")


def scalar(value: object, what: str) -> float:
    """A number from an array of one element of any shape, as files store scalars.

    :raises ValueError: when the value is not one number.
    """
    import numpy as np

    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise ValueError(f"{what} is {array.dtype} of shape {array.shape} instead of one number")
    return float(array.reshape(-1)[0])


def plain(error: BaseException) -> str:
    """An error's text on one line, without final full stop, without advice to read files unsafely."""
    text = " ".join(str(error).split())
    if "pickle" in text and "load it unsafely" in text:
        text = "it contains pickled objects, which are not read since they can run code"
    return text.rstrip(".") or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error of a library that explains at length."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__


def shown(path: str | os.PathLike[str]) -> str:
    """A path for a message; bytes of its name outside UTF-8 are hexadecimal."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
