"""Joint motions with their limits as an SVG picture, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from timar_ros.retarget.joint_motion import JointMotion
from timar_ros.retarget.profile import RobotProfile

Float = NDArray[np.float64]
WIDTH, HEIGHT, GAP = 330.0, 120.0, 46.0
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
SVG = "http://www.w3.org/2000/svg"
QUANTITIES = ("position", "velocity", "acceleration", "jerk")


def draw(profile: RobotProfile, motions: Mapping[str, JointMotion]) -> str:
    """An SVG of each motion's position, velocity, acceleration and jerk over time, as shares of the limits.

    One column per motion, one row per quantity; the lines at 1 and -1 are the limits; positions are shares of the way
    from neutral to the limit on that side; wanted positions are dotted.
    """
    columns = []
    for index, (name, motion) in enumerate(motions.items()):
        columns.append(_column(profile, name, motion, GAP + index * (WIDTH + GAP)))
    width, height = GAP + len(motions) * (WIDTH + GAP), 2 * GAP + len(QUANTITIES) * (HEIGHT + GAP)
    legend = [
        f'<text x="{GAP + 130 * i:.0f}" y="{height - 12:.0f}" fill="{_colour(i)}">{escape(name)}</text>'
        for i, name in enumerate(profile.names)
    ]
    return "\n".join(
        [
            f'<svg xmlns="{SVG}" width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="{GAP}" y="20" font-size="15">{escape(profile.title)}: shares of the limits</text>',
            *columns,
            *legend,
            "</svg>",
            "",
        ]
    )


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _column(profile: RobotProfile, name: str, motion: JointMotion, left: float) -> str:
    limits = profile.limits()
    step = np.diff(motion.time_ns)[:, None] * 1e-9
    seconds = (motion.time_ns - motion.time_ns[0]) * 1e-9
    shares = {
        "position": _share(motion.position, limits),
        "velocity": motion.velocity / limits["velocity"],
        "acceleration": motion.acceleration / limits["acceleration"],
        "jerk": np.diff(motion.acceleration, axis=0) / step / limits["jerk"],
    }
    parts = []
    for row, quantity in enumerate(QUANTITIES):
        top = GAP + row * (HEIGHT + GAP)
        parts.append(f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#bbb"/>')
        for level in (-1, 0, 1):
            y = _y(np.array([float(level)]), top)[0]
            style = "#c00" if level else "#ddd"
            parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{style}"/>')
        parts.append(f'<text x="{left}" y="{top - 5}">{escape(name)}: {quantity}</text>')
        for joint in range(len(profile.names)):
            if quantity == "position":
                wanted = _share(motion.wanted, limits)[:, joint]
                parts.append(_line(seconds, wanted, left, top, _colour(joint), dotted=True))
            parts.append(_line(seconds, shares[quantity][:, joint], left, top, _colour(joint)))
    parts.append(f'<text x="{left + WIDTH - 40}" y="{top + HEIGHT + 15}">{seconds[-1]:.1f} s</text>')
    return "\n".join(parts)


def _share(position: Float, limits: Mapping[str, Float]) -> Float:
    """Positions as shares of the way from neutral to the limit on their side; positive is towards the upper limit."""
    shift = position - limits["neutral"]
    half = np.where(shift > 0, limits["upper"] - limits["neutral"], limits["neutral"] - limits["lower"])
    return np.divide(shift, half, out=np.zeros_like(shift), where=half > 0)


def _y(values: Float, top: float) -> Float:
    return np.asarray(top + HEIGHT / 2 - np.clip(values, -1.15, 1.15) * HEIGHT / 2.4)


def _line(seconds: Float, values: Float, left: float, top: float, colour: str, dotted: bool = False) -> str:
    x = left + WIDTH * seconds[: len(values)] / max(float(seconds[-1]), 1e-9)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), _y(values, top).tolist(), strict=True))
    dash = ' stroke-dasharray="2,3"' if dotted else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"{dash}/>'
