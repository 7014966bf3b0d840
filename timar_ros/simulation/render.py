"""Pictures of a simulated head: PNG stills and MP4 films, offscreen."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError, require
from timar_ros.simulation.head import Head, MujocoHead
from timar_ros.simulation.mujoco_loader import INSTALL, load_mujoco

Picture = NDArray[np.uint8]


class Camera:
    """Draws a MuJoCo head offscreen.

    :param view: a camera of the model: ``front`` or ``side``.
    :raises UserError: no MuJoCo model, or no OpenGL library to draw with.
    """

    def __init__(self, head: Head, width: int = 640, height: int = 480, view: str = "front") -> None:
        if not isinstance(head, MujocoHead):
            raise UserError(f"pictures need MuJoCo: {INSTALL}")
        mujoco = load_mujoco("drawing")
        self._head, self._view = head, view
        try:
            self._renderer = mujoco.Renderer(head.model, height, width)
        except Exception as error:  # each OpenGL binding fails in its own way
            raise UserError(
                f"cannot draw without a screen ({type(error).__name__}: {' '.join(str(error).split())}): install EGL "
                "(apt install libegl1 libegl-mesa0 libgl1-mesa-dri) or set MUJOCO_GL=osmesa with libosmesa6"
            ) from error
        scene = self._renderer.scene
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0

    def draw(self) -> Picture:
        """A picture of the head's current pose, shape [height, width, 3]."""
        self._renderer.update_scene(self._head.data, self._view)
        return np.asarray(self._renderer.render(), dtype=np.uint8)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()


def write_png(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a picture [height, width, 3] as PNG, atomically.

    :raises UserError: the file cannot be written.
    """
    height, width, _ = picture.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + chunk(b"IEND", b"")
    target = Path(path)
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error


class Film:
    """An MP4 file to which pictures are added; it appears under its name when it is closed without an error.

    :param audio: a sound file for the film, or None.
    :raises UserError: no encoder (imageio-ffmpeg) is installed, or the folder does not exist.
    """

    def __init__(
        self, path: str | os.PathLike[str], width: int, height: int, rate: float = 25.0, audio: str | None = None
    ) -> None:
        encoder: Any = require("imageio_ffmpeg", "pip install imageio-ffmpeg", "writing films")
        self._path = Path(path)
        if not self._path.parent.is_dir():
            raise UserError(f"folder {self._path.parent} does not exist: create it first")
        self._temporary = self._path.with_name(f".{self._path.stem}.part{self._path.suffix or '.mp4'}")
        self._writer = encoder.write_frames(
            str(self._temporary), (width, height), fps=rate, quality=7, macro_block_size=2, audio_path=audio,
            audio_codec="aac" if audio else None, output_params=["-shortest"] if audio else [],
        )  # fmt: skip
        self._writer.send(None)

    def add(self, picture: Picture) -> None:
        """Add one picture [height, width, 3]."""
        self._writer.send(np.ascontiguousarray(picture))

    def __enter__(self) -> Film:  # noqa: PYI034 (typing.Self needs 3.11)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        if kind is None and self._temporary.exists():
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)
