"""What retargeting gives: joint positions, velocities and accelerations over time, and how to write them down."""

from __future__ import annotations

import csv
import os
import secrets
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class JointMotion:
    """Joint motion at T times of a uniform grid, for J joints (``profile.joints``: neck, jaw, face).

    ``time_ns`` [T] int64; ``position``, ``velocity``, ``acceleration`` [T, J] in rad and s; ``wanted`` [T, J]: joint
    positions before smoothing and limits (of the frames, linear between them); ``rotation`` [T, 4]: the head's
    commanded rotation against its neutral pose as quaternion x y z w, REP-103; ``lost_angle`` [T] rad: what the neck
    cannot turn of the wanted rotation; ``mouth`` [T]: opening within 0 and 1; ``owned`` [T]: False while another
    controller owns the neck.
    """

    time_ns: NDArray[np.int64]
    names: tuple[str, ...]
    position: Float
    velocity: Float
    acceleration: Float
    wanted: Float
    rotation: Float
    lost_angle: Float
    mouth: Float
    owned: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.time_ns)

    def __getitem__(self, part: slice) -> JointMotion:
        """A part of the times."""
        values = {f.name: getattr(self, f.name)[part] for f in fields(self) if f.name != "names"}
        return JointMotion(names=self.names, **values)

    @staticmethod
    def join(parts: list[JointMotion]) -> JointMotion:
        """Consecutive motions as one."""
        keys = [f.name for f in fields(JointMotion) if f.name != "names"]
        return JointMotion(names=parts[0].names, **{k: np.concatenate([getattr(p, k) for p in parts]) for k in keys})


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
