"""FLAME frames as weights of other face models: ARKit blendshapes, FACS action units, one number for a mouth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfilt

from timar_ros.errors import UserError
from timar_ros.files.reading import read_yaml
from timar_ros.motion import EXPRESSION_SIZE, MOTION_SIZE, PITCH, ROLL
from timar_ros.resources import share

Floats = npt.NDArray[np.float32]

COLUMNS = (
    *(f"exp{i}" for i in range(EXPRESSION_SIZE)),
    "jaw_x",
    "jaw_y",
    "jaw_z",
    "head_x",
    "head_y",
    "head_z",
    "bias",
)
SIDED = (
    *("browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp"),
    *("eyeSquint", "eyeWide", "mouthDimple", "mouthFrown", "mouthLowerDown", "mouthPress", "mouthSmile"),
    *("mouthStretch", "mouthUpperUp", "noseSneer"),
)
ARKIT = (
    *(f"{name}{side}" for name in SIDED for side in ("Left", "Right")),
    *("browInnerUp", "cheekPuff", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthFunnel"),
    *("mouthLeft", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower"),
    *("mouthShrugUpper", "tongueOut"),
)
"""The 52 blendshapes of Apple's ARKit. Left and right are the subject's."""

JAW_OPEN = 1.0 / 2.2
"""The jaw's rotation about x [rad] at ``jawOpen`` 1; config/avatar.yaml has the inverse."""
JAW_SIDE = 1.0 / 8.0
"""The jaw's rotation about y [rad] at ``jawLeft`` 1; config/avatar.yaml has the inverse."""

ACTION_UNITS = 99
HEAD_SHAKE, HEAD_NOD = 84, 85
# A movement of this many rad/s (RMS in the band) counts as a full nod or shake.
FULL_SWING = 0.8


LARGEST_FACTOR = 1e6
"""No factor of a map is beyond this."""


def jaw_of_arkit(
    weights: Mapping[str, float], *, jaw_open: float = JAW_OPEN, jaw_side: float = JAW_SIDE
) -> npt.NDArray[np.float64]:
    """FLAME's jaw rotation [3] as axis-angle [rad] from ARKit weights in [0, 1]; a missing weight counts as 0.

    This is the inverse of the jaw's rows in config/avatar.yaml. ``jawForward`` moves the jaw without a rotation:
    FLAME cannot show it.
    """
    opened = weights.get("jawOpen", 0.0)
    aside = weights.get("jawLeft", 0.0) - weights.get("jawRight", 0.0)
    return np.array([jaw_open * opened, jaw_side * aside, 0.0])


class AvatarMap:
    """A linear map from FLAME to weights, read from a file (``config/avatar.yaml`` explains its form).

    :raises UserError: when the file cannot be read or names an unknown column.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        file = Path(path) if path else share("config", "avatar.yaml")
        table = read_yaml(file, "avatar map")
        if not isinstance(table, dict) or set(table) != {"arkit", "facs", "mouth"}:
            raise UserError(f"avatar map {file} must have the entries 'arkit', 'facs' and 'mouth'")
        if not all(isinstance(table[name], dict) and table[name] for name in ("arkit", "facs")):
            raise UserError(f"avatar map {file}: 'arkit' and 'facs' must be tables")
        self.names = tuple(str(name) for name in table["arkit"])
        self._arkit = np.stack([_row(file, name, terms) for name, terms in table["arkit"].items()])
        self.absent = tuple(name for name in ARKIT if name not in self.names)
        """ARKit's names that the map does not give: these weights stay 0."""
        self._units = np.array([_unit(file, unit) for unit in table["facs"]], np.int64)
        self._facs = np.stack([_row(file, str(unit), terms) for unit, terms in table["facs"].items()])
        self._mouth = _row(file, "mouth", table["mouth"])

    def arkit(self, frames: npt.ArrayLike) -> Floats:
        """Weights [T, len(names)] in [0, 1] of frames [T, 56]."""
        return _weights(frames, self._arkit)

    def mouth(self, frames: npt.ArrayLike) -> Floats:
        """How far the mouth is open [T], 0 to 1, of frames [T, 56]."""
        return _weights(frames, self._mouth[None])[:, 0]

    def facs(self, frames: npt.ArrayLike) -> Floats:
        """Intensities [T, 99] in [0, 1] of the static action units of frames [T, 56]."""
        out = np.zeros((len(np.asarray(frames)), ACTION_UNITS), np.float32)
        out[:, self._units] = _weights(frames, self._facs)
        return out


class HeadGestures:
    """Nods and shakes in a stream of frames: movement of pitch or yaw between 1 and 4 Hz, causal.

    :param rate: frames per second.
    """

    def __init__(self, rate: float) -> None:
        self._sos = butter(2, [1.0, 4.0], "bandpass", fs=rate, output="sos")
        self._state = np.zeros((len(self._sos), 2, 2))
        self._smoothing = float(np.exp(-1.0 / (0.3 * rate)))
        self._energy = np.zeros(2)
        self._start: npt.NDArray[np.float64] | None = None

    def push(self, frames: npt.ArrayLike) -> Floats:
        """Strength [T, 2] of nod and shake, 0 to 1, of the next frames [T, 56]."""
        angles = np.asarray(frames, np.float64)[:, PITCH:ROLL]
        if self._start is None:  # the first frame counts as rest, in any pose
            self._start = angles[0]
        banded, self._state = sosfilt(self._sos, angles - self._start, axis=0, zi=self._state)
        out = np.empty((len(angles), 2), np.float32)
        for index, swing in enumerate(banded * 2 * np.pi * 2.0):  # rad to rad/s at the band's middle, 2 Hz
            self._energy = self._smoothing * self._energy + (1 - self._smoothing) * swing**2
            out[index] = np.minimum(1.0, np.sqrt(2 * self._energy) / FULL_SWING)
        return out


def _weights(frames: npt.ArrayLike, rows: Floats) -> Floats:
    values = np.asarray(frames, np.float32)
    if values.ndim != 2 or values.shape[1] != MOTION_SIZE:
        raise ValueError(f"frames must be [T, 56], not {values.shape}")
    columns = np.concatenate([values, np.ones((len(values), 1), np.float32)], axis=1)
    return np.clip(columns @ rows.T, 0.0, 1.0).astype(np.float32)


def _row(file: Path, name: str, terms: object) -> Floats:
    if not isinstance(terms, Mapping):
        raise UserError(f"avatar map {file}: '{name}' must be a table of columns and factors")
    row = np.zeros(len(COLUMNS), np.float32)
    for column, factor in terms.items():
        if column not in COLUMNS or not isinstance(factor, (int, float)) or not abs(factor) <= LARGEST_FACTOR:
            raise UserError(
                f"avatar map {file}: '{name}' has '{column}: {factor}'; "
                "columns are exp0..exp49, jaw_x/y/z, head_x/y/z and bias, factors are numbers"
            )
        row[COLUMNS.index(column)] = factor
    return row


def _unit(file: Path, unit: object) -> int:
    if not isinstance(unit, int) or not 0 <= unit < ACTION_UNITS:
        raise UserError(f"avatar map {file}: action unit {unit!r} is not a number from 0 to {ACTION_UNITS - 1}")
    return unit
