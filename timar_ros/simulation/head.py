"""A simulated head: joints that are moved by position commands, in MuJoCo or, without it, ideally."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timar_ros.errors import MissingDependencyError
from timar_ros.resources import share
from timar_ros.retarget.profile import RobotProfile
from timar_ros.simulation.engine import load_mujoco
from timar_ros.simulation.mjcf import profile_to_mjcf, servo_gains

Float = NDArray[np.float64]
# Servos that follow about 17 ms late, as good hobby servos do: natural frequency [Hz] and damping ratio.
SERVO_FREQUENCY, SERVO_DAMPING = 15.0, 0.8
# A servo can give this many times the torque that the profile's acceleration limit needs.
SERVO_RESERVE = 4.0


@dataclass(frozen=True)
class JointReading:
    """What a head's sensors say: ``position`` [J] rad, ``velocity`` [J] rad/s, ``effort`` [J] N m."""

    position: Float
    velocity: Float
    effort: Float


class KinematicHead:
    """Joints that are at once where they are told to be, but within their limits, as ros2_control's mock hardware.

    :param lag: time constant [s] of joints that stay behind (first order) instead.
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
        """Positions to go to, [J]."""
        self._wanted = np.clip(np.asarray(positions, dtype=np.float64), self._lower, self._upper)

    def step(self, seconds: float) -> None:
        """Let time pass."""
        if seconds > 0:
            share = -math.expm1(-seconds / self._lag) if self._lag > 0.0 else 1.0
            self._previous = self._position
            self._position = self._previous + share * (self._wanted - self._previous) if share < 1.0 else self._wanted
            self._elapsed = seconds

    def read(self) -> JointReading:
        """Where the joints are."""
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
        self._owed = 0.0
        limits = profile.limits()
        self._tune(limits["acceleration"])
        self.data.qpos[self._positions] = limits["neutral"]
        self.data.ctrl[self._actuators] = limits["neutral"]
        mujoco.mj_forward(self.model, self.data)

    def _tune(self, acceleration: Float) -> None:
        """Give each servo the stiffness, damping and torque that fit the inertia that it moves."""
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
        """Positions for the servos, [J]."""
        self.data.ctrl[self._actuators] = np.asarray(positions, dtype=np.float64)

    def step(self, seconds: float) -> None:
        """Let time pass, in steps of the model's own size; what is left over is done the next time."""
        self._owed += seconds
        count = int(self._owed / self.model.opt.timestep + 1e-9)
        self._owed -= count * self.model.opt.timestep
        if count:
            self._mujoco.mj_step(self.model, self.data, count)

    def read(self) -> JointReading:
        """What encoders and torque sensors say."""
        return JointReading(
            self.data.qpos[self._positions].copy(),
            self.data.qvel[self._velocities].copy(),
            self.data.actuator_force[self._actuators].copy(),
        )


Head = KinematicHead | MujocoHead


def make_head(profile: RobotProfile, engine: str = "auto", lag: float = 0.0) -> Head:
    """A simulated head.

    :param engine: ``mujoco``, ``kinematic``, or ``auto``: MuJoCo where it is installed.
    :param lag: time constant [s] by which the kinematic engine's joints stay behind; MuJoCo's servos have their own.
    :raises MissingDependencyError: ``mujoco`` was asked for and is not installed.
    """
    if engine == "kinematic":
        return KinematicHead(profile, lag)
    try:
        return MujocoHead(profile)
    except MissingDependencyError:
        if engine == "mujoco":
            raise
        return KinematicHead(profile, lag)
