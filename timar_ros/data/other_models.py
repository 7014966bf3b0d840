"""Motion of other models as FLAME frames: arrays of ARTalk and UniLS, which `timar evaluate --prediction` scores.

Both write 100 coefficients of expression, the head's rotation and the jaw's at 25 frames a second, in FLAME's axes:

- ARTalk (``inference.py`` of its public code): a tensor ``NAME_motions.pt`` [T, 106]; jaw [T, 3].
- UniLS (``MOTION_DIM`` of its public configurations): [T, 108]; the jaw's opening alone, then four values of the eyes.
  Its scripts write films; save ``pred_motion_code[0]`` with ``numpy.save`` or ``torch.save``.

The first 50 of the 100 coefficients are used: FLAME orders its components of expression by variance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError, require
from timar_ros.files.reading import first_line
from timar_ros.motion import EXPRESSION, EXPRESSION_SIZE, HEAD, JAW, JAW_OPENING, MOTION_SIZE

ARTALK, UNILS = 106, 108
"""Columns of the two models' frames."""
COEFFICIENTS = 100
"""Number of expression coefficients of both."""


def to_frames(array: NDArray[Any]) -> NDArray[np.float32] | None:
    """Frames [T, 56] in TIMAR's order from [T, 56], ARTalk's [T, 106] or UniLS's [T, 108]; None for other shapes."""
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        return None
    width = array.shape[1]
    if width == MOTION_SIZE:
        return array.astype(np.float32)
    if width not in (ARTALK, UNILS):
        return None
    frames = np.zeros((len(array), MOTION_SIZE), np.float32)
    frames[:, EXPRESSION] = array[:, :EXPRESSION_SIZE]
    frames[:, HEAD] = array[:, COEFFICIENTS : COEFFICIENTS + 3]
    jaw = array[:, COEFFICIENTS + 3 :]
    if width == ARTALK:
        frames[:, JAW] = jaw
    else:
        frames[:, JAW_OPENING] = jaw[:, 0]
    return frames


def read_tensor(path: Path) -> NDArray[Any]:
    """The array of a ``.pt`` file that holds one tensor; nothing in the file is executed.

    :raises UserError: the file holds something else.
    """
    torch = require("torch", "pip install 'torch>=2.4'", f"reading {path}")
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
        return np.asarray(tensor.float().numpy())
    except Exception as error:  # torch raises many kinds of errors for a foreign file
        raise UserError(f"{path}: not a file of one tensor ({first_line(error)})") from error
