"""The output of retargeting: joint positions, velocities and accelerations over time, and a CSV writer."""

from __future__ import annotations

import csv
import os
import secrets
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.retarget.kinematics import forward_rotation
from timar_ros.retarget.profile import NeckJoint

Float = NDArray[np.float64]


@dataclass(frozen=True)
class JointMotion:
    """Joint motion at T times of a uniform grid, for J joints (``profile.joints``: neck, jaw, face).

    ``time_ns`` [T] int64; ``position``, ``velocity``, ``acceleration`` [T, J] in rad and s; ``wanted`` [T, J]: joint
    positions before smoothing and limits (of the frames, linear between them); ``lost_angle`` [T] rad: the unreachable
    angle of the wanted rotation; ``mouth`` [T]: opening within 0 and 1; ``owned`` [T]: False while another controller
    owns the neck. ``neck`` holds the joints of the first columns.
    """

    neck: tuple[NeckJoint, ...]
    names: tuple[str, ...]
    time_ns: NDArray[np.int64]
    position: Float
    velocity: Float
    acceleration: Float
    wanted: Float
    lost_angle: Float
    mouth: Float
    owned: NDArray[np.bool_]

    @property
    def rotation(self) -> Float:
        """The head's commanded rotation relative to its neutral pose, quaternions x y z w, shape [T, 4], REP-103."""
        return np.asarray(forward_rotation(self.neck, self.position[:, : len(self.neck)]).as_quat())

    def __len__(self) -> int:
        return len(self.time_ns)

    def __getitem__(self, part: slice) -> JointMotion:
        """A part of the times."""
        arrays: dict[str, Any] = {name: getattr(self, name)[part] for name in _ARRAYS}
        return replace(self, **arrays)

    @staticmethod
    def join(parts: list[JointMotion]) -> JointMotion:
        """Consecutive motions as one."""
        if len(parts) == 1:
            return parts[0]
        arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        return replace(parts[0], **arrays)


_ARRAYS = tuple(field.name for field in fields(JointMotion) if field.name not in ("neck", "names"))


def write_joints_csv(motion: JointMotion, path: str | os.PathLike[str]) -> None:
    """Write ``time`` [s from the first row] and ``<joint>/position``, ``/velocity``, ``/acceleration`` per joint.

    Numbers have 12 significant decimals, so that differences of rows still keep the limits. Written atomically.
    """
    target = Path(path)
    header = ["time"] + [f"{name}/{what}" for name in motion.names for what in ("position", "velocity", "acceleration")]
    table = np.stack([motion.position, motion.velocity, motion.acceleration], axis=2).reshape(len(motion), -1)
    seconds = (motion.time_ns - motion.time_ns[:1]) * 1e-9
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for time, row in zip(seconds.tolist(), table.tolist(), strict=True):
                writer.writerow([f"{time:.6f}", *(f"{x:.12g}" for x in row)])
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
