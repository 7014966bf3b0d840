"""The necks as their robots' own URDFs describe them, to hold the profiles against: numbers read from those files.

Each joint: name, origin's rpy [rad], axis in the joint's own frame. ``base``: rpy of the frame (REP-103 as seen
from the URDF's root, where that is another) and of a mount before the first joint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NINETY = math.pi / 2
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Chain:
    joints: tuple[tuple[str, Triple, Triple], ...]
    root: Triple = (0.0, 0.0, 0.0)

    def urdf(self) -> str:
        """A URDF of the chain alone."""
        links = ['<link name="base"/>']
        parts = []
        parent = "base"
        for index, (name, rpy, axis) in enumerate(self.joints):
            origin = rpy
            if index == 0 and self.root != (0.0, 0.0, 0.0):
                links.append('<link name="root"/>')
                parts.append(_joint("root_joint", "fixed", "base", "root", self.root, (1, 0, 0)))
                parent = "root"
            child = f"link_{index}"
            links.append(f'<link name="{child}"/>')
            parts.append(_joint(name, "revolute", parent, child, origin, axis))
            parent = child
        return f'<robot name="neck">{"".join(links)}{"".join(parts)}</robot>'


def _joint(name: str, kind: str, parent: str, child: str, rpy: Triple, axis: Triple) -> str:
    limit = '<limit lower="-7" upper="7" velocity="10" effort="10"/>' if kind == "revolute" else ""
    return (
        f'<joint name="{name}" type="{kind}"><origin xyz="0 0 0.05" rpy="{_text(rpy)}"/><parent link="{parent}"/>'
        f'<child link="{child}"/><axis xyz="{_text(axis)}"/>{limit}</joint>'
    )


def _text(values: Triple) -> str:
    return " ".join(repr(float(x)) for x in values)


X, Y, Z = (1, 0, 0), (0, 1, 0), (0, 0, 1)
STRAIGHT = (0, 0, 0)
CHAINS = {
    "timar_head": Chain((("neck_yaw", STRAIGHT, Z), ("neck_pitch", STRAIGHT, Y), ("neck_roll", STRAIGHT, X))),
    "tiago": Chain((("head_1_joint", STRAIGHT, Z), ("head_2_joint", (NINETY, 0, 0), Z))),
    "nao": Chain((("HeadYaw", STRAIGHT, Z), ("HeadPitch", STRAIGHT, Y))),
    "pepper": Chain((("HeadYaw", STRAIGHT, Z), ("HeadPitch", STRAIGHT, Y))),
    "reachy2": Chain(
        (("neck_roll", STRAIGHT, X), ("neck_pitch", STRAIGHT, Y), ("neck_yaw", STRAIGHT, Z)),
        root=(0, math.radians(10), 0),
    ),
    "unitree_h2": Chain((("head_pitch_joint", STRAIGHT, Y), ("head_yaw_joint", STRAIGHT, Z))),
    # In the root frame the axes are y, -x and z, and the robot looks along -x.
    "icub": Chain(
        (
            ("neck_pitch", (NINETY, 0, -NINETY), (-1, 0, 0)),
            ("neck_roll", STRAIGHT, (0, 0, 1)),
            ("neck_yaw", STRAIGHT, (0, 1, 0)),
        ),
        root=(0, 0, math.pi),
    ),
    "ergocub": Chain((("neck_pitch", STRAIGHT, (0, -1, 0)), ("neck_roll", STRAIGHT, X), ("neck_yaw", STRAIGHT, Z))),
    "romeo": Chain(
        (
            ("NeckYaw", STRAIGHT, (0.173651, 0.0, 0.984807)),
            ("NeckPitch", STRAIGHT, Y),
            ("HeadPitch", STRAIGHT, Y),
            ("HeadRoll", STRAIGHT, X),
        )
    ),
    "sawyer": Chain((("head_pan", STRAIGHT, Z),)),
    "pr2": Chain((("head_pan_joint", STRAIGHT, Z), ("head_tilt_joint", STRAIGHT, Y))),
    "fetch": Chain((("head_pan_joint", STRAIGHT, Z), ("head_tilt_joint", STRAIGHT, Y))),
    "hsr": Chain((("head_pan_joint", STRAIGHT, Z), ("head_tilt_joint", STRAIGHT, (0, -1, 0)))),
    "ari": Chain((("head_1_joint", STRAIGHT, Z), ("head_2_joint", (NINETY, 0, 0), (0, 0, -1)))),
    "talos": Chain((("head_1_joint", STRAIGHT, Y), ("head_2_joint", STRAIGHT, Z))),
    # The torso's frame lies on its side.
    "reemc": Chain(
        (("head_1_joint", (NINETY, 0, 0), Z), ("head_2_joint", (-NINETY, 0, 0), Z)),
        root=(-NINETY, 0, 0),
    ),
    "tiago_pro": Chain((("head_1_joint", STRAIGHT, Z), ("head_2_joint", (-NINETY, 0, 0), (0, 0, -1)))),
    "gr1t2": Chain(
        (("head_roll_joint", STRAIGHT, X), ("head_pitch_joint", STRAIGHT, Y), ("head_yaw_joint", STRAIGHT, Z))
    ),
    "booster_t1": Chain((("AAHead_yaw", STRAIGHT, Z), ("Head_pitch", STRAIGHT, Y))),
    "qtrobot": Chain((("HeadYaw", STRAIGHT, Z), ("HeadPitch", STRAIGHT, Y))),
    # joint_mast and joint_head, both fixed, turn the frame by a quarter in all.
    "stretch": Chain(
        (("joint_head_pan", (0, 0, NINETY), Z), ("joint_head_tilt", (NINETY, 0, 0), Z)),
        root=(0, 0, -NINETY),
    ),
}
