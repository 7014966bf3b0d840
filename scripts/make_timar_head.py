#!/usr/bin/env python3
"""Generate timar_head's meshes, its plain URDF and its MJCF from urdf/timar_head.urdf.xacro.

    python scripts/make_timar_head.py

The meshes are superellipsoids. Points beyond a cutting plane are moved onto it: the meshes stay closed and small.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import xacro
from numpy.typing import NDArray

from timar_ros.simulation.mjcf import urdf_to_mjcf

URDF = Path(__file__).resolve().parents[1] / "urdf"
Points = NDArray[np.float64]


def superellipsoid(
    half_axes: tuple[float, float, float], round_xy: float, round_z: float, rings: int = 28, top: float | None = None
) -> Points:
    """Surface points on a grid [rings, 2 * rings, 3]; an exponent of 1 is round, below 1 boxy; flat above ``top``."""

    def power(x: Points, exponent: float) -> Points:
        return np.sign(x) * np.abs(x) ** exponent

    highest = np.pi / 2
    if top is not None:
        highest = float(np.arcsin(power(np.asarray(top / half_axes[2]), 1 / round_z)))
    latitude = np.linspace(-np.pi / 2, highest, rings + 1)[:, None]
    longitude = np.linspace(-np.pi, np.pi, 2 * rings, endpoint=False)[None]
    x = power(np.cos(latitude), round_z) * power(np.cos(longitude), round_xy)
    y = power(np.cos(latitude), round_z) * power(np.sin(longitude), round_xy)
    z = power(np.sin(latitude), round_z) * np.ones_like(longitude)
    grid = np.stack([x, y, z], axis=2) * np.asarray(half_axes)
    lid = np.broadcast_to(grid[-1].mean(axis=0), grid[-1:].shape)
    return np.concatenate([grid, lid])


def triangles(grid: Points) -> Points:
    """Triangles [N, 3, 3] of a closed grid, without degenerate ones."""
    low, high = grid[:-1], grid[1:]
    low_next, high_next = np.roll(low, -1, axis=1), np.roll(high, -1, axis=1)
    first = np.stack([low, low_next, high_next], axis=2).reshape(-1, 3, 3)
    second = np.stack([low, high_next, high], axis=2).reshape(-1, 3, 3)
    both = np.concatenate([first, second])
    area = np.linalg.norm(np.cross(both[:, 1] - both[:, 0], both[:, 2] - both[:, 0]), axis=1)
    kept: Points = both[area > 1e-10]
    return kept


def write_stl(name: str, grid: Points) -> None:
    faces = triangles(grid).astype("<f4")
    normals = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rows = np.zeros(len(faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["normal"], rows["corners"] = normals, faces
    header = f"timar_head {name}, Apache-2.0".encode().ljust(80)
    (URDF / "meshes" / f"{name}.stl").write_bytes(header + struct.pack("<I", len(faces)) + rows.tobytes())


def clipped(grid: Points, low: tuple[float, float, float], high: tuple[float, float, float]) -> Points:
    return np.clip(grid, np.asarray(low), np.asarray(high))


def make_meshes() -> None:
    (URDF / "meshes").mkdir(exist_ok=True)
    far = 1.0
    skull = superellipsoid((0.112, 0.122, 0.128), 0.80, 0.82)
    # In front, the skull ends above the mouth; at the back, it reaches down to the base.
    chin = skull[..., 0] > -0.012
    cut = skull.copy()
    cut[..., 2] = np.where(chin, np.maximum(skull[..., 2], -0.058), skull[..., 2])
    write_stl("skull", cut)
    visor = superellipsoid((0.1165, 0.1235, 0.1295), 0.80, 0.82, rings=40)
    write_stl("visor", clipped(visor, (0.035, -0.101, -0.038), (far, 0.101, 0.082)))
    palate = superellipsoid((0.104, 0.112, 0.118), 0.80, 0.82, rings=16, top=-0.050)
    write_stl("palate", clipped(palate, (-0.01, -far, -0.076), (far, far, far)))
    jaw = superellipsoid((0.112, 0.122, 0.128), 0.80, 0.82, rings=20, top=-0.0605)
    write_stl("jaw", clipped(jaw, (-0.010, -far, -far), (far, far, far)))
    bust = superellipsoid((0.098, 0.185, 0.120), 0.75, 0.62) + np.array([0.0, 0.0, 0.062])
    # Shoulders slope down from the collar.
    shoulder = 1 - 0.32 * (bust[..., 1] / 0.185) ** 2
    bust[..., 2] = np.where(bust[..., 2] > 0, bust[..., 2] * shoulder, bust[..., 2])
    write_stl("bust", clipped(bust, (-far, -far, 0.0), (far, far, 0.178)))


def main() -> None:
    make_meshes()
    note = "<!-- Made from timar_head.urdf.xacro by scripts/make_timar_head.py; edit that instead. -->\n"
    urdf = xacro.process_file(str(URDF / "timar_head.urdf.xacro")).toprettyxml(indent="  ")
    body = urdf[urdf.index("<robot") :]
    (URDF / "timar_head.urdf").write_text(f'<?xml version="1.0"?>\n{note}{body}', encoding="utf-8")
    (URDF / "timar_head.mjcf.xml").write_text(note + urdf_to_mjcf(urdf), encoding="utf-8")


if __name__ == "__main__":
    main()
