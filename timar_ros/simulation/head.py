"""A simulated head: position commands move its joints, in MuJoCo or, without MuJoCo, ideally."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.errors import MissingDependencyError
from timar_ros.resources import share
from timar_ros.retarget.profile import RobotProfile
from timar_ros.simulation.mjcf import profile_to_mjcf, servo_gains
from timar_ros.simulation.mujoco_loader import load_mujoco

Float = NDArray[np.float64]
# Servos that follow about 17 ms late, as good hobby servos do: natural frequency [Hz] and damping ratio.
SERVO_FREQUENCY, SERVO_DAMPING = 15.0, 0.8
# A servo can give this many times the torque that the profile's acceleration limit needs.
SERVO_RESERVE = 4.0


@dataclass(frozen=True)
class JointReading:
    """A head's sensor values: ``position`` [J] rad, ``velocity`` [J] rad/s, ``effort`` [J] N m."""

    position: Float
    velocity: Float
    effort: Float


class KinematicHead:
    """Joints that reach commanded positions at once, within their limits, like ros2_control's mock hardware.

    :param lag: time constant [s] of joints that follow with a first-order lag instead.
    """

    engine = "kinematic"

    def __init__(self, profile: RobotProfile, lag: float = 0.0) -> None:
        self._lag = lag
        limits = profile.limits()
        self.names = tuple(profile.names)
        self._lower, self._upper = limits["lower"], limits["upper"]
        self._previous = limits["neutral"].copy()
        self._position = limits["neutral"].copy()
        self._wanted = limits["neutral"].copy()
        self._elapsed = 1.0

    def command(self, positions: ArrayLike) -> None:
        """Set the target positions, [J]."""
        self._wanted = np.clip(np.asarray(positions, dtype=np.float64), self._lower, self._upper)

    def step(self, seconds: float) -> None:
        """Advance time."""
        if seconds > 0:
            share = -math.expm1(-seconds / self._lag) if self._lag > 0.0 else 1.0
            self._previous = self._position
            self._position = self._previous + share * (self._wanted - self._previous) if share < 1.0 else self._wanted
            self._elapsed = seconds

    def read(self) -> JointReading:
        """The joints' measured state."""
        velocity = (self._position - self._previous) / self._elapsed
        return JointReading(self._position.copy(), velocity, np.zeros_like(velocity))


class MujocoHead:
    """A head with inertia, gravity and servos in MuJoCo.

    :raises MissingDependencyError: MuJoCo is not installed.
    """

    engine = "mujoco"

    def __init__(self, profile: RobotProfile) -> None:
        mujoco = load_mujoco("the dynamic simulation")
        self._mujoco = mujoco
        if profile.name == "timar_head":
            self.model = mujoco.MjModel.from_xml_path(str(share("urdf", "timar_head.mjcf.xml")))
        else:
            self.model = mujoco.MjModel.from_xml_string(profile_to_mjcf(profile))
        self.data = mujoco.MjData(self.model)
        self.names = tuple(profile.names)
        joints = [self.model.joint(name) for name in self.names]
        self._positions = np.array([joint.qposadr[0] for joint in joints])
        self._velocities = np.array([joint.dofadr[0] for joint in joints])
        self._actuators = np.array([self.model.actuator(name).id for name in self.names])
        self._remaining = 0.0
        limits = profile.limits()
        self._tune(limits["acceleration"])
        self.data.qpos[self._positions] = limits["neutral"]
        self.data.ctrl[self._actuators] = limits["neutral"]
        mujoco.mj_forward(self.model, self.data)

    def _tune(self, acceleration: Float) -> None:
        """Set each servo's stiffness, damping and torque for the inertia that it moves."""
        mujoco, model, data = self._mujoco, self.model, self.data
        mujoco.mj_forward(model, data)
        felt = np.array(model.dof_M0)
        for follower, leader, ratio in self._followers():
            felt[leader] += ratio**2 * felt[follower]
        inertia = felt[self._velocities]
        stiffness, damping = servo_gains(inertia, SERVO_FREQUENCY, SERVO_DAMPING)
        model.actuator_gainprm[self._actuators, 0] = stiffness
        model.actuator_biasprm[self._actuators, 1] = -stiffness
        model.actuator_biasprm[self._actuators, 2] = -damping
        gravity = np.abs(np.asarray(data.qfrc_bias)[self._velocities])
        torque = SERVO_RESERVE * (inertia * acceleration + gravity) + 0.5
        model.actuator_forcelimited[self._actuators] = 1
        model.actuator_forcerange[self._actuators] = np.stack([-torque, torque], axis=1)

    def _followers(self) -> Iterator[tuple[int, int, float]]:
        """Degrees of freedom that an equality ties to another: (follower, leader, ratio of their velocities)."""
        model, joint = self.model, self._mujoco.mjtEq.mjEQ_JOINT
        for kind, first, second, data in zip(
            model.eq_type, model.eq_obj1id, model.eq_obj2id, model.eq_data, strict=True
        ):
            if kind == joint and second >= 0:
                yield int(model.jnt_dofadr[first]), int(model.jnt_dofadr[second]), float(data[1])

    def command(self, positions: ArrayLike) -> None:
        """Set the servos' target positions, [J]."""
        self.data.ctrl[self._actuators] = np.asarray(positions, dtype=np.float64)

    def step(self, seconds: float) -> None:
        """Advance time, in steps of the model's own size; the remainder is simulated at the next call."""
        self._remaining += seconds
        count = int(self._remaining / self.model.opt.timestep + 1e-9)
        self._remaining -= count * self.model.opt.timestep
        if count:
            self._mujoco.mj_step(self.model, self.data, count)

    def read(self) -> JointReading:
        """The values of encoders and torque sensors."""
        return JointReading(
            self.data.qpos[self._positions].copy(),
            self.data.qvel[self._velocities].copy(),
            self.data.actuator_force[self._actuators].copy(),
        )


Head = KinematicHead | MujocoHead


def make_head(profile: RobotProfile, engine: str = "auto", lag: float = 0.0) -> Head:
    """A simulated head.

    :param engine: ``mujoco``, ``kinematic``, or ``auto``: MuJoCo if it is installed.
    :param lag: time constant [s] of the kinematic engine's joints; MuJoCo's servos have their own.
    :raises MissingDependencyError: ``engine`` is ``mujoco``, which is not installed.
    """
    if engine == "kinematic":
        return KinematicHead(profile, lag)
    try:
        return MujocoHead(profile)
    except MissingDependencyError:
        if engine == "mujoco":
            raise
        return KinematicHead(profile, lag)
