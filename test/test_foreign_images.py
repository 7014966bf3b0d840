"""Pictures in messages: every encoding gives the same picture, and what is none is refused in one line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from timar_ros.errors import UserError
from timar_ros.foreign.foreign_images import ENCODINGS, picture

RGB = np.array(
    [[[250, 10, 30], [20, 240, 60], [5, 15, 200], [255, 255, 255]], [[0, 0, 0], [128] * 3, [90] * 3, [1] * 3]]
)


def image(encoding: str, data: np.ndarray, *, width: int = 4, padding: int = 0) -> Any:
    rows = np.pad(data.reshape(len(data), -1).astype(np.uint8), ((0, 0), (0, padding)))
    return SimpleNamespace(
        encoding=encoding, height=len(data), width=width, step=rows.shape[1], data=rows.tobytes(), is_bigendian=0
    )


@pytest.mark.parametrize("padding", [0, 3])
def test_orders_of_colours_and_padded_rows(padding: int) -> None:
    alpha = np.full((2, 4, 1), 7)
    for encoding, data in {
        "rgb8": RGB,
        "bgr8": RGB[:, :, ::-1],
        "8UC3": RGB[:, :, ::-1],
        "rgba8": np.concatenate([RGB, alpha], axis=2),
        "bgra8": np.concatenate([RGB[:, :, ::-1], alpha], axis=2),
    }.items():
        found = picture(image(encoding, data, padding=padding))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, RGB)
    grey = picture(image("mono8", RGB[:, :, 0], padding=padding))
    np.testing.assert_array_equal(grey, np.repeat(RGB[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("encoding", ["yuv422_yuy2", "yuyv", "yuv422", "uyvy"])
def test_a_webcams_yuv(encoding: str) -> None:
    """BT.601 in the video range: 16 is black, 235 white; red has Y 81, U 90, V 240."""
    pairs = [(16, 128, 16, 128), (235, 128, 235, 128), (81, 90, 81, 240)]
    if encoding in ("yuv422", "uyvy"):
        pairs = [(second, first, fourth, third) for first, second, third, fourth in pairs]
    found = picture(image(encoding, np.array([sum(pairs, ())]), width=6))
    wanted = [[0, 0, 0]] * 2 + [[255, 255, 255]] * 2 + [[255, 0, 0]] * 2
    np.testing.assert_allclose(found[0].astype(int), wanted, atol=2)


def test_compressed_pictures() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'timar_ros[face]'")
    good, data = cv2.imencode(".png", RGB[:, :, ::-1].astype(np.uint8))
    assert good
    np.testing.assert_array_equal(picture(SimpleNamespace(format="png", data=data.tobytes())), RGB)
    for bad in (b"", b"no picture", data.tobytes()[:20]):
        with pytest.raises(UserError, match=r"cannot be decoded|is not taken"):
            picture(SimpleNamespace(format="png", data=bad))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "bayer_rggb8"}, "not known"),
        ({"height": 3}, "no picture of"),
        ({"step": 5}, "no picture of"),
        ({"width": 0}, "not taken"),
        ({"height": 100_000}, "not taken"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    message = image("rgb8", RGB)
    vars(message).update(changes)
    with pytest.raises(UserError, match=words):
        picture(message)
    odd = image("yuyv", np.zeros((2, 6)), width=3)
    with pytest.raises(UserError, match="not taken"):
        picture(odd)
    with pytest.raises(UserError, match="hold no picture"):
        picture(SimpleNamespace(data="text"))
    assert "yuyv" in ENCODINGS
