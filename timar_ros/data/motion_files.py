"""FLAME motion files to and from arrays [T, 56]: 50 expression, 3 jaw, 3 head pose (axis-angle [rad])."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.data.other_models import ARTALK, UNILS, read_tensor, to_frames
from timar_ros.errors import UserError
from timar_ros.files import atomic_path
from timar_ros.files.reading import check_arrays, existing_file, reading, scalar
from timar_ros.motion import EXPRESSION, EXPRESSION_SIZE, HEAD, JAW, MOTION_RATE, MOTION_SIZE
from timar_ros.streaming.resampling import resample_frames

# Resampling does not interpolate between a file's frames that are further apart than this [ns].
LONGEST_STEP = 500_000_000
LARGEST_ANGLE = 2 * np.pi
"""Largest plausible rotation [rad]; larger values are not in rad."""
# A file is in degrees if this share of its frames exceeds that angle, or any rotation exceeds this size [rad].
DEGREES_SHARE, DEGREES_ANGLE = 0.05, 12.0


def split(
    frames: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Frames [T, 56] as expression [T, 50], jaw [T, 3] and head pose [T, 3] (views)."""
    return frames[:, EXPRESSION], frames[:, JAW], frames[:, HEAD]


def join(
    expression: NDArray[np.floating[Any]], jaw: NDArray[np.floating[Any]], head: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Frames [T, 56] from expression [T, 50], jaw [T, 3] and head pose [T, 3]."""
    return np.concatenate([expression, jaw, head], axis=1).astype(np.float32)


def dualtalk_pose(frames: NDArray[Any]) -> NDArray[Any]:
    """Head pose, then jaw [T, 6] of frames [T, 56]: the array `pose` of DualTalk's files."""
    return np.concatenate([frames[:, HEAD], frames[:, JAW]], axis=1)


def load_motion(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], float]:
    """Read a motion file at its own rate: frames [T, 56] (NaN: not tracked) and the rate [Hz].

    A `.npz` in DualTalk's layout holds `exp` [T, 50], `pose` [T, 6] (head pose, then jaw) and perhaps `rate`; a `.npy`
    holds frames [T, 56] in TIMAR's order; a `.npy` or `.pt` may also hold those of ARTalk or UniLS. The default rate is
    25 Hz.

    :raises UserError: when the file is missing, unreadable, empty, or of another layout.
    """
    file = existing_file(path, "motion file")
    loaded: Any
    with reading(file, "as motion", "give a .npz with `exp` and `pose`"):
        if file.suffix == ".pt":
            loaded = read_tensor(file)
        else:
            check_arrays(file)
            loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            frames, rate = _from_array(loaded, file), MOTION_RATE
        else:
            with loaded:
                frames, rate = _from_archive(loaded, file)
    if len(frames) == 0:
        raise UserError(f"motion file {file} holds no frames")
    if np.isnan(frames).all():
        raise UserError(f"motion file {file} holds no tracked frame: all {len(frames)} are NaN; leave it out instead")
    if (share := looks_like_degrees(frames)) > 0:
        raise UserError(
            f"motion file {file} has rotations of up to {float(np.nanmax(np.abs(frames[:, JAW.start :]))):.0f} in "
            f"{share} of {len(frames)} frames: they are in degrees; angles are in rad (multiply by pi / 180)"
        )
    if np.isinf(frames).any():
        raise UserError(f"motion file {file} holds infinite values; NaN marks what was not tracked")
    if not (np.isfinite(rate) and 1.0 <= rate <= 1000.0):
        raise UserError(f"motion file {file} gives a rate of {rate} Hz; it must lie between 1 and 1000")
    return frames, rate


def looks_like_degrees(frames: NDArray[np.floating[Any]]) -> int:
    """Number of frames [T, 56] in which head or jaw exceed any rotation in rad; 0 if the angles can be rad.

    A few slightly too large frames are outliers of a tracker or of an untrained network, not degrees.
    """
    with np.errstate(invalid="ignore"):
        turned = np.linalg.norm(np.stack([frames[:, JAW], frames[:, HEAD]]), axis=-1)
        beyond = (turned > LARGEST_ANGLE).any(axis=0)
        if not (beyond.mean() > DEGREES_SHARE or (turned > DEGREES_ANGLE).any()):
            return 0
        return int(beyond.sum())


def read_motion(path: str | os.PathLike[str], rate: float = MOTION_RATE) -> NDArray[np.float32]:
    """Read a motion file as frames [T, 56] at ``rate`` [Hz]; NaN where not tracked. Raises as load_motion."""
    frames, own_rate = load_motion(path)
    return resample_motion(frames, own_rate, rate)


def resample_motion(frames: NDArray[np.float32], rate: float, target: float) -> NDArray[np.float32]:
    """Frames [T, 56] from ``rate`` to ``target`` [Hz]; rotations along the shortest arc; the length in time is kept."""
    if rate == target:
        return frames
    times = np.round(np.arange(len(frames)) * (1e9 / rate)).astype(np.int64)
    count = max(1, round(len(frames) * target / rate))
    wanted = np.round(np.arange(count) * (1e9 / target)).astype(np.int64)
    return resample_frames(times, frames, wanted, max_gap=LONGEST_STEP, hold=round(1e9 / rate))


def write_motion(
    path: str | os.PathLike[str], frames: NDArray[np.float32], rate: float = MOTION_RATE, **extra: NDArray[Any]
) -> None:
    """Write frames [T, 56] as `.npz` in DualTalk's layout (`exp`, `pose`, `rate`, and any extra arrays), atomically.

    :raises UserError: when the name does not end in .npz or the path cannot be written.
    """
    if Path(path).suffix.lower() != ".npz":
        raise UserError(f"cannot write {path}: the name must end in .npz")
    frames = np.asarray(frames, dtype=np.float32)
    arrays: dict[str, Any] = {"exp": frames[:, EXPRESSION], "pose": dualtalk_pose(frames), "rate": np.float64(rate)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **(arrays | extra))


def _from_array(array: NDArray[Any], file: Path) -> NDArray[np.float32]:
    frames = to_frames(array)
    if frames is None:
        raise UserError(
            f"{file} holds {array.dtype} of shape {array.shape}; expected numbers of shape (T, {MOTION_SIZE}), or "
            f"ARTalk's (T, {ARTALK}) or UniLS's (T, {UNILS})"
        )
    return frames


def _from_archive(archive: np.lib.npyio.NpzFile, file: Path) -> tuple[NDArray[np.float32], float]:
    missing = [name for name in ("exp", "pose") if name not in archive]
    if missing:
        raise UserError(f"{file} has no array {' and no '.join(missing)} (found: {', '.join(archive.files) or 'none'})")
    expression, pose = archive["exp"], archive["pose"]
    if (
        expression.ndim != 2
        or pose.ndim != 2
        or expression.shape[1] < EXPRESSION_SIZE
        or pose.shape[1] != 6
        or len(expression) != len(pose)
    ):
        raise UserError(
            f"{file} has exp {expression.shape} and pose {pose.shape}; expected (T, 50) and (T, 6) of the same T"
        )
    if expression.dtype.kind not in "fiu" or pose.dtype.kind not in "fiu":
        raise UserError(f"{file} has exp of {expression.dtype} and pose of {pose.dtype}; expected numbers")
    rate = scalar(archive["rate"], "rate") if "rate" in archive else MOTION_RATE
    return join(expression[:, EXPRESSION], pose[:, 3:], pose[:, :3]), rate
