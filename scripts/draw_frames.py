#!/usr/bin/env python3
"""Draws docs/frames.svg: FLAME's axes and REP-103's on the same head, and the same three rotations in both.

python scripts/draw_frames.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from timar_ros.retarget.rotations import flame_to_rep, rep_to_flame

Points = NDArray[np.float64]
# The view is from the face's front left, a little from above. Rows: right, up, towards the viewer, in REP-103.
VIEW = Rotation.from_euler("zy", [-32, 14], degrees=True)
SCALE = 78.0
RED, GREEN, BLUE, GREY = "#d62728", "#2a9d3a", "#1f5fd0", "#8a94a0"


def project(points: Points, centre: tuple[float, float]) -> Points:
    """Points [N, 3] in REP-103 as pixels [N, 2]: the view is along -x, so y (the subject's left) is on the right."""
    rotated = VIEW.apply(np.atleast_2d(points))
    return np.stack([centre[0] + SCALE * rotated[:, 1], centre[1] - SCALE * rotated[:, 2]], axis=1)


def path(points: Points, centre: tuple[float, float], **style: str) -> str:
    pairs = " ".join(f"{x:.1f},{y:.1f}" for x, y in project(points, centre))
    extra = " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in style.items())
    return f'<polyline points="{pairs}" {extra}/>'


def ring(rotation: Rotation, radius: tuple[float, float], offset: tuple[float, float, float]) -> Points:
    turn = np.linspace(0, 2 * np.pi, 49)
    flat = np.stack([np.zeros_like(turn), radius[0] * np.cos(turn), radius[1] * np.sin(turn)], axis=1)
    return rotation.apply(flat + np.asarray(offset))


def head(rotation: Rotation, centre: tuple[float, float]) -> str:
    """A rotated head like timar_head: a ball, a visor, two eyes and a mouth."""
    middle = project(np.zeros(3), centre)[0]
    parts = [
        f'<circle cx="{middle[0]:.1f}" cy="{middle[1]:.1f}" r="{SCALE * 0.72:.1f}" fill="#eef1f4" stroke="{GREY}"/>'
    ]
    turn = np.linspace(-0.75, 0.75, 15)

    def on_ball(yaw: Points, pitch: Points) -> Points:
        x = np.cos(pitch) * np.cos(yaw)
        return rotation.apply(
            0.73 * np.stack([x, np.cos(pitch) * np.sin(yaw), np.sin(pitch) * np.ones_like(yaw)], axis=1)
        )

    top, bottom = on_ball(turn, np.full(15, 0.55)), on_ball(turn[::-1], np.full(15, -0.12))
    parts.append(path(np.concatenate([top, bottom, top[:1]]), centre, fill="#1a1f29", stroke="none"))
    for side in (-0.36, 0.36):
        around = np.linspace(0, 2 * np.pi, 25)
        eye = on_ball(side + 0.17 * np.cos(around), 0.2 + 0.17 * np.sin(around))
        pupil = on_ball(side + 0.08 * np.cos(around), 0.2 + 0.08 * np.sin(around))
        parts += [path(eye, centre, fill="white", stroke="none"), path(pupil, centre, fill="#1f7fb8", stroke="none")]
    mouth = on_ball(np.linspace(-0.3, 0.3, 9), -0.42 + 0.5 * np.linspace(-0.3, 0.3, 9) ** 2)
    parts.append(path(mouth, centre, fill="none", stroke="#a04848", stroke_width="3", stroke_linecap="round"))
    return "\n".join(parts)


def arrow(direction: Points, label: str, colour: str, centre: tuple[float, float]) -> str:
    start, end = project(np.stack([0.74 * direction, 1.35 * direction]), centre)
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
    side = np.array([-along[1], along[0]])
    tip = " ".join(f"{p[0]:.1f},{p[1]:.1f}" for p in (end + 9 * along, end + 5 * side, end - 5 * side))
    text = end + 24 * along
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="{colour}" '
        f'stroke-width="3.5"/><polygon points="{tip}" fill="{colour}"/>'
        f'<text x="{text[0]:.1f}" y="{text[1] + 5:.1f}" fill="{colour}" text-anchor="middle">{label}</text>'
    )


def main() -> None:
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="820" height="560" font-family="sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    axes = {
        "FLAME: x left, y up, z out of the face": list(flame_to_rep(np.eye(3))),
        "REP-103: x forward, y left, z up": list(np.eye(3)),
    }
    for column, (title, directions) in enumerate(axes.items()):
        centre = (220.0 + 390 * column, 165.0)
        parts.append(f'<text x="{centre[0]}" y="26" text-anchor="middle" font-size="16">{title}</text>')
        parts.append(head(Rotation.identity(), centre))
        for direction, label, colour in zip(directions, "xyz", (RED, GREEN, BLUE), strict=True):
            parts.append(arrow(np.asarray(direction), label, colour, centre))
    names = ("pitch: the face goes down", "yaw: it turns to its own left", "roll: its top goes to its right")
    for column, (flame, name) in enumerate(zip(0.5 * np.eye(3), names, strict=True)):
        centre = (150.0 + 260 * column, 420.0)
        rep = flame_to_rep(flame)
        assert np.allclose(rep_to_flame(rep), flame)
        parts.append(head(Rotation.from_rotvec(rep), centre))
        for line, text in enumerate(
            (name, f"FLAME +{'xyz'[int(np.argmax(flame))]} = REP +{'xyz'[int(np.argmax(rep))]}")
        ):
            parts.append(f'<text x="{centre[0]}" y="{510 + 20 * line}" text-anchor="middle">{text}</text>')
    parts.append("</svg>\n")
    target = Path(__file__).resolve().parents[1] / "docs" / "frames.svg"
    target.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
