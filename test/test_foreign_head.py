"""A tracker's head pose in FLAME's axes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from timar_ros.foreign.foreign_head import head_frame


@pytest.mark.parametrize(
    ("axis", "angle", "expected"),
    [
        ("y", 0.3, [0.3, 0.0, 0.0]),  # REP-103: about y (left), chin down; FLAME: about x (left), chin down
        ("z", 0.4, [0.0, 0.4, 0.0]),  # about up, to the left
        ("x", 0.2, [0.0, 0.0, 0.2]),  # about the view's axis
    ],
)
def test_axes(axis: str, angle: float, expected: list[float]) -> None:
    frame = head_frame(Rotation.from_euler(axis, angle).as_quat())
    np.testing.assert_allclose(frame[53:], expected, atol=1e-6)
    assert np.isnan(frame[:53]).all()


def test_neutral_is_taken_off() -> None:
    neutral = Rotation.from_euler("zyx", [2.0, 0.1, -0.2])
    turned = neutral * Rotation.from_euler("y", 0.25)
    np.testing.assert_allclose(head_frame(turned.as_quat(), neutral=neutral.as_quat())[53:], [0.25, 0, 0], atol=1e-6)


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [0, 0, 1]])
def test_no_orientation(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="no orientation"):
        head_frame(bad)
