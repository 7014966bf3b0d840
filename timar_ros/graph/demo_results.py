"""The results of a finished run: motion.npz, joints.csv, run.json, and the figures of its summary."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.recording import Joints, load_recording
from timar_ros.data.motion_files import write_motion
from timar_ros.errors import UserError
from timar_ros.evaluation.metrics import bag_metrics
from timar_ros.files import atomic_path
from timar_ros.graph.observer import ObservedRun
from timar_ros.motion import MOTION_RATE
from timar_ros.retarget.profile import RobotProfile, load_profile
from timar_ros.streaming.stream_info import step_seconds

SLACK = 1e-6
"""Largest rounding error that is no violation."""

OWN = ("bag", "logs", "motion.npz", "joints.csv", "agent.wav", "run.json", "report.html")
"""Files that a run writes into its folder, and that the next run removes."""


@dataclass(frozen=True)
class Results:
    """The figures of a run; ``run.json`` holds them by these names."""

    seconds: float
    """Length of the recording."""
    turns: int
    """Number of turns (hops in rolling mode)."""
    dropped: int
    """Turns without motion."""
    from_plan: int
    """Hops that came too late, so that the plan of an earlier hop supplied their motion (rolling mode)."""
    lost_samples: int
    """Lost samples of both speakers, at 16 kHz."""
    latency_p50: float
    """Time from a turn's arrival to its motion's arrival, both at another process [s]."""
    latency_p95: float
    latency_max: float
    real_time_factor: float
    """Mean latency divided by the length of a turn or hop."""
    joint_states: int
    limit_violations: int
    """Commanded joint positions, velocities and accelerations beyond the robot's limits."""
    measured_violations: int
    """Measured joint positions and velocities beyond the limits."""
    model: str
    trained: bool
    robot: str
    mode: str

    @property
    def faults(self) -> list[str]:
        """Descriptions of the run's faults; empty for a run without faults."""
        found = []
        if not self.turns:
            found.append("no turn came")
        if self.dropped:
            found.append(f"{self.dropped} of {self.turns} turns got no motion")
        if self.from_plan:
            found.append(f"{self.from_plan} of {self.turns} hops came too late: earlier plans supplied their motion")
        if self.lost_samples:
            found.append(f"{self.lost_samples} samples were lost")
        if self.limit_violations:
            found.append(f"{self.limit_violations} joint-limit violations")
        return found


def prepare(folder: Path) -> None:
    """Create the folder, and remove the files of an earlier run.

    :raises UserError: when the folder contains other files, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in folder.iterdir() if path.name.lstrip(".").split(".part")[0] not in OWN)
        if foreign:
            raise UserError(f"{folder} contains other files ({', '.join(foreign[:3])}): give another --out")
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error


def conclude(folder: Path, observed: ObservedRun, seconds: float, robot: str) -> Results:
    """Write motion.npz, joints.csv and run.json into the folder of a finished run with its bag.

    :param seconds: length of the recording.
    """
    frames = observed.frames()[: int(seconds * MOTION_RATE + 1e-9)]
    write_motion(folder / "motion.npz", frames, MOTION_RATE)
    recording = load_recording(folder / "bag")
    if recording.joints is not None:
        write_joints(folder / "joints.csv", recording.joints)
    profile = load_profile(robot)
    measured = bag_metrics.measure(recording, profile).get("robot", {})
    latency = np.array([*observed.latency.values()]) if observed.latency else np.array([np.nan])
    info = observed.info
    results = Results(
        seconds=round(seconds, 3),
        turns=max(observed.turns, default=-1) + 1,
        dropped=len(observed.unanswered()),
        from_plan=len(observed.from_plan),
        lost_samples=observed.lost_user + observed.lost_agent,
        latency_p50=float(np.percentile(latency, 50)),
        latency_p95=float(np.percentile(latency, 95)),
        latency_max=float(latency.max()),
        real_time_factor=float(latency.mean()) / (step_seconds(info) if info is not None else 1.0),
        joint_states=0 if recording.joints is None else len(recording.joints.time),
        limit_violations=commanded_violations(folder / "bag", profile),
        measured_violations=int(measured.get("limit_violations", 0) + measured.get("speed_violations", 0)),
        model=info.model if info is not None else "",
        trained=bool(info is not None and info.trained),
        robot=robot,
        mode=info.mode if info is not None else "",
    )
    with atomic_path(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(asdict(results), indent=2) + "\n", encoding="utf-8")
    return results


def commanded_violations(bag: Path, profile: RobotProfile) -> int:
    """Number of commanded values in a bag's ``joint_commands`` beyond the robot's limits."""
    with BagReader(bag) as reader:
        topic = reader.find("joint_commands")
        messages = [m for _, _, m in reader.messages({topic})] if topic is not None else []
    if len(messages) < 2:
        return 0
    columns = [list(messages[0].name).index(name) for name in profile.names]
    time = np.array([m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in messages])
    position, velocity = (np.array([getattr(m, n) for m in messages])[:, columns] for n in ("position", "velocity"))
    acceleration = np.diff(velocity, axis=0) / np.diff(time)[:, None]
    limits = profile.limits()
    return sum(
        int(np.count_nonzero(beyond))
        for beyond in (
            (position > limits["upper"] + SLACK) | (position < limits["lower"] - SLACK),
            np.abs(velocity) > limits["velocity"] * (1.0 + SLACK) + SLACK,
            # The velocity may reverse between two commands; their difference is then too small, never too large.
            np.abs(acceleration) > limits["acceleration"] * (1.0 + 1e-3),
        )
    )


def write_joints(path: Path, joints: Joints) -> None:
    """Write measured joints in `timar retarget`'s format: time, then position, velocity, acceleration by joint."""
    acceleration = (
        np.gradient(joints.velocity, joints.time, axis=0) if len(joints.time) > 1 else np.zeros_like(joints.velocity)
    )
    header = ["time"]
    for name in joints.names:
        header += [f"{name}/position", f"{name}/velocity", f"{name}/acceleration"]
    rows = np.stack([joints.position, joints.velocity, acceleration], axis=2).reshape(len(joints.time), -1)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for moment, row in zip(joints.time, rows, strict=True):
            writer.writerow([f"{moment:.6f}", *(f"{value:.9g}" for value in row)])
