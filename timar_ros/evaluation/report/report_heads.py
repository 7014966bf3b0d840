"""The heads on a report's stage: FLAME motion as faces, joints as the robot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.bags.recording import Joints, Motion
from timar_ros.data.motion_files import dualtalk_pose
from timar_ros.evaluation.metrics.bag_metrics import hold_last
from timar_ros.evaluation.report import report_robot
from timar_ros.evaluation.report.flame_model import FlameModel, film
from timar_ros.evaluation.report.report_block import Block
from timar_ros.motion import HEAD, JAW, MOTION_RATE
from timar_ros.retarget.kinematics import forward_rotation
from timar_ros.retarget.profile import RobotProfile
from timar_ros.retarget.rotations import rep_to_flame
from timar_ros.simulation.robot_shape import RobotShape

#: Expression coefficients that drive brows, mouth corners and mouth width of a stylised face. FLAME's coefficients do
#: not have these meanings: this makes the face lively, and the page says so.
HINTS = {"brow": 6, "smile": 0, "wide": 1}

ROBOT_RATE = 50.0

Floats = NDArray[np.float32]


def face(
    block: Block, identity: str, label: str, note: str, role: str, motion: Motion, seconds: float
) -> dict[str, Any]:
    """A face that moves by FLAME frames."""
    frames = motion.at_rate(seconds)
    # A tracker slower than 25 Hz leaves gaps; the head keeps its last known pose.
    known = np.isfinite(frames[:, HEAD]).all(axis=1) | np.isfinite(frames[:, JAW]).all(axis=1)
    held = hold_last(frames)
    newest = np.clip(np.searchsorted(motion.time, (np.arange(len(frames)) + 0.5) / MOTION_RATE) - 1, 0, None)
    speaking = motion.speaking[newest] if len(motion.speaking) else np.full(len(frames), 255)
    return {
        "id": identity,
        "label": label,
        "note": note,
        "role": role,
        "kind": "face",
        "rate": MOTION_RATE,
        "pose": block.add(np.concatenate([dualtalk_pose(held), hints(held)], axis=1)),
        "known": block.add_bytes(known),
        "speaking": block.add_bytes(speaking),
    }


def with_mesh(block: Block, head: dict[str, Any], motion: Motion, seconds: float, model: FlameModel) -> dict[str, Any]:
    """The same head with the user's own face in place of the stylised one."""
    compressed = film(model, hold_last(motion.at_rate(seconds)))
    low, high = compressed.mean.min(axis=0), compressed.mean.max(axis=0)
    mesh = {
        "faceArray": block.add_integers(model.faces.reshape(-1)),
        "mean": block.add(compressed.mean),
        "basis": block.add(compressed.basis),
        "weights": block.add(compressed.weights),
        "pivot": [float(value) for value in model.pivot],
        "size": float(high[1] - low[1]),
    }
    note = f"{head['note']}; face within {max(compressed.error * 1e3, 0.01):.2f} mm"
    return {**head, "kind": "mesh", "note": note, "mesh": mesh}


def hints(frames: Floats) -> NDArray[np.float64]:
    """Brow, smile and width of a stylised face, [T, 3] in -1 to 1: coefficients by their own mean and spread."""
    chosen = frames[:, list(HINTS.values())].astype(np.float64)
    spread = chosen.std(axis=0)
    return np.asarray(np.tanh((chosen - chosen.mean(axis=0)) / np.where(spread > 1e-6, 1.6 * spread, np.inf)))


def robot(
    block: Block,
    identity: str,
    role: str,
    joints: Joints,
    profile: RobotProfile,
    seconds: float,
    speaking: NDArray[np.bool_],
    shape: RobotShape | None = None,
) -> dict[str, Any]:
    """The robot's head as its joints turn it (forward kinematics of the profile), and its jaw's opening.

    :param shape: the robot's shape from its URDF; None: a stand-in.
    """
    grid = np.arange(max(1, round(seconds * ROBOT_RATE))) / ROBOT_RATE
    columns = [joints.names.index(joint.name) for joint in profile.neck]
    positions = np.stack([_at(grid, joints, column) for column in columns], axis=1)
    head = rep_to_flame(forward_rotation(profile.neck, positions).as_rotvec())
    jaw = np.zeros((len(grid), 3))
    hinge = profile.jaw.joint
    note = "joints as measured"
    if hinge is not None and hinge.name in joints.names:
        opening = (_at(grid, joints, joints.names.index(hinge.name)) - hinge.neutral) / (
            profile.jaw.open_position - hinge.neutral
        )
        jaw[:, 0] = profile.jaw.full_open * np.clip(opening, 0.0, 1.0)
    else:
        note = "joints as measured; it has no jaw"
    if shape is None:
        note = f"{note}; a stand-in: its URDF is not known"
    frame = np.minimum((grid * MOTION_RATE).astype(int), max(0, len(speaking) - 1))
    body: dict[str, Any] = {}
    if shape is not None:
        names = [name for name in joints.names if any(link.joint == name for link in shape.links)]
        tracks = [_at(grid, joints, joints.names.index(name)) for name in names]
        angles = block.add(np.stack(tracks, axis=1) if tracks else np.zeros((len(grid), 0)))
        body = {"body": {"shape": report_robot.shape(block, shape), "names": names, "positions": angles}}
    return {
        **body,
        "id": identity,
        "label": f"Robot {profile.name}",
        "note": note,
        "role": role,
        "kind": "robot",
        "rate": ROBOT_RATE,
        "pose": block.add(np.concatenate([head, jaw, np.zeros((len(grid), 3))], axis=1)),
        "known": block.add_bytes((grid >= joints.time[0] - 0.1) & (grid <= joints.time[-1] + 0.1)),
        "speaking": block.add_bytes(speaking[frame] if len(speaking) else np.zeros(len(grid))),
    }


def _at(grid: NDArray[np.float64], joints: Joints, column: int) -> NDArray[np.float64]:
    """A joint's position on a grid of times."""
    known = np.isfinite(joints.position[:, column])
    if not known.any():
        return np.zeros(len(grid))
    return np.interp(grid, joints.time[known], joints.position[known, column])
