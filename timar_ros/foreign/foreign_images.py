"""Pictures of ``sensor_msgs`` as arrays, without ROS: Image and CompressedImage are told apart by their fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from timar_ros.errors import UserError, require

Picture = npt.NDArray[np.uint8]
"""A picture [height, width, 3], uint8, red green blue."""

LARGEST = 8192
"""Most rows or columns of a picture."""
MOST_BYTES = 64 << 20
"""Most bytes of a compressed picture."""


def _yuv(luma: npt.NDArray[np.uint8], first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> Picture:
    """Luma [h, w] with the pairs' colours [h, w / 2] as red green blue (BT.601, video range)."""
    y = 1.164 * (luma.astype(np.float32) - 16.0)
    u, v = (np.repeat(part.astype(np.float32) - 128.0, 2, axis=1) for part in (first, second))
    rgb = np.stack([y + 1.596 * v, y - 0.392 * u - 0.813 * v, y + 2.017 * u], axis=2)
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


def _yuyv(rows: npt.NDArray[np.uint8]) -> Picture:
    return _yuv(rows[:, 0::2], rows[:, 1::4], rows[:, 3::4])


def _uyvy(rows: npt.NDArray[np.uint8]) -> Picture:
    return _yuv(rows[:, 1::2], rows[:, 0::4], rows[:, 2::4])


def _channels(count: int, order: tuple[int, int, int]) -> Callable[[npt.NDArray[np.uint8]], Picture]:
    def take(rows: npt.NDArray[np.uint8]) -> Picture:
        return rows.reshape(len(rows), -1, count)[:, :, order]

    return take


# Bytes of a pixel, and what makes red green blue of the rows.
ENCODINGS: dict[str, tuple[int, Callable[[npt.NDArray[np.uint8]], Picture]]] = {
    "rgb8": (3, _channels(3, (0, 1, 2))),
    "bgr8": (3, _channels(3, (2, 1, 0))),
    "8UC3": (3, _channels(3, (2, 1, 0))),
    "rgba8": (4, _channels(4, (0, 1, 2))),
    "bgra8": (4, _channels(4, (2, 1, 0))),
    "mono8": (1, _channels(1, (0, 0, 0))),
    "8UC1": (1, _channels(1, (0, 0, 0))),
    "yuv422_yuy2": (2, _yuyv),
    "yuyv": (2, _yuyv),
    "yuv422": (2, _uyvy),
    "uyvy": (2, _uyvy),
}


def picture(message: Any) -> Picture:
    """The picture of an ``Image`` or a ``CompressedImage`` (JPEG, PNG and whatever else OpenCV reads).

    :raises UserError: for another message, an unknown encoding, sizes that do not fit the data, or data that cannot be
        decoded.
    """
    if hasattr(message, "encoding") and hasattr(message, "step"):
        return _raw(message)
    if hasattr(message, "format") and hasattr(message, "data"):
        return _compressed(message)
    raise UserError(f"messages of type {type(message).__name__} hold no picture: use Image or CompressedImage")


def _raw(message: Any) -> Picture:
    if message.encoding not in ENCODINGS:
        raise UserError(f"pictures of encoding {message.encoding!r} are not known; it can be {', '.join(ENCODINGS)}")
    size, convert = ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    in_pairs = size == 2
    if not (0 < height <= LARGEST and 0 < width <= LARGEST) or (in_pairs and width % 2):
        raise UserError(f"a picture of {width} x {height} pixels in {message.encoding} is not taken")
    if step < width * size or len(data) < step * height:
        raise UserError(
            f"{len(data)} bytes in rows of {step} are no picture of {width} x {height} pixels in {message.encoding}"
        )
    rows = data[: step * height].reshape(height, step)[:, : width * size]
    return np.ascontiguousarray(convert(rows))


def _compressed(message: Any) -> Picture:
    cv2 = require("cv2", "pip install 'timar_ros[face]'", "reading compressed pictures")
    data = np.frombuffer(message.data, np.uint8)
    if not 0 < len(data) <= MOST_BYTES:
        raise UserError(f"a compressed picture of {len(data)} bytes is not taken")
    try:
        found = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        found = None
    if found is None:
        raise UserError(f"a compressed picture ({message.format or 'no format given'}) cannot be decoded")
    return np.ascontiguousarray(found[:, :, ::-1])
