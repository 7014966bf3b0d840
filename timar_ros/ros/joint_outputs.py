"""Publishes joint motion on a robot's topics: trajectories, forward commands or a pose; always joint states."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from timar_ros.retarget import JointMotion, RobotProfile
from timar_ros.retarget.blinks import eyelid_closure
from timar_ros.ros import qos
from timar_ros.ros.endpoints import EndpointNode
from timar_ros.ros.joint_messages import doubles, trajectory_message
from timar_ros.ros.messages import MessageError, to_stamp

STAMP_BEFORE_NS = 10_000_000
"""A stamped trajectory begins this long before its first point: points' times must be above 0."""


class JointOutputs:
    """The publishers of node `retarget`.

    :param kind: ``trajectory``, ``forward`` or ``pose``.
    :param states: also publish on ``joint_states``.
    """

    def __init__(self, node: EndpointNode, profile: RobotProfile, kind: str, states: bool) -> None:
        self.kind, self._profile = kind, profile
        self._necks = len(profile.neck)
        self._state = JointState(name=profile.names)
        self._trajectories = node.publish_on(JointTrajectory, "joint_trajectory", qos.commands())
        self._commanded = [node.publish_on(JointState, "joint_commands", qos.commands())]
        if states:
            self._commanded.append(node.publish_on(JointState, "joint_states", qos.commands()))
        self._mouth = node.publish_on(Float32, "mouth", qos.commands())
        self._eyelids = node.publish_on(Float32, "eyelids", qos.commands())
        self._forward = node.publish_on(Float64MultiArray, "commands", qos.commands()) if kind == "forward" else None
        self._pose = node.publish_on(PoseStamped, "head_pose", qos.commands()) if kind == "pose" else None

    @property
    def trajectory_topic(self) -> str:
        """Full name of the topic of trajectories."""
        return str(self._trajectories.topic_name)

    def send(self, motion: JointMotion, begin: int, end: int) -> None:
        """Publish due rows: each as a joint state, the newest as a forward command, pose, mouth and eyelids."""
        if not np.isfinite(motion.position[begin:end]).all():
            raise MessageError("commands hold values that are not finite")
        if any(publisher.get_subscription_count() for publisher in self._commanded):
            self._send_states(motion, range(begin, end))
        newest = end - 1
        if not motion.owned[newest]:
            return
        if self._forward is not None:
            self._forward.publish(Float64MultiArray(data=doubles(motion.position[newest])))
        if self._pose is not None:
            self._pose.publish(self._pose_message(motion[newest:end]))
        if self._mouth.get_subscription_count():
            self._mouth.publish(Float32(data=float(motion.mouth[newest])))
        if self._eyelids.get_subscription_count():
            self._eyelids.publish(Float32(data=float(eyelid_closure(motion.time_ns[newest:end])[0])))

    def _send_states(self, motion: JointMotion, rows: range) -> None:
        message = self._state  # one message for all rows: at this rate new messages cost too much time
        for row in rows:
            message.header.stamp = to_stamp(int(motion.time_ns[row]))
            message.position = doubles(motion.position[row])
            message.velocity = doubles(motion.velocity[row])
            for publisher in self._commanded:
                publisher.publish(message)

    def _pose_message(self, motion: JointMotion) -> PoseStamped:
        message = PoseStamped()
        message.header.stamp = to_stamp(int(motion.time_ns[-1]))
        message.header.frame_id = self._profile.pose_frame
        orientation = message.pose.orientation
        orientation.x, orientation.y, orientation.z, orientation.w = motion.rotation[-1].tolist()
        return message

    def send_trajectory(self, motion: JointMotion, now_ns: int, stamped: bool, step: int) -> int | None:
        """Publish a motion that ends at rest as a trajectory; returns the end time, None if there was nothing to send.

        :param stamped: stamp the trajectory just before its first point, possibly in the past; else stamp it 0, and
            its times count from ``now_ns``, after which all points must lie.
        :param step: commands per point.
        """
        if self.kind != "trajectory" or not len(motion):
            return None
        # Points on one grid for all trajectories: the interpolations of two equal motions are then equal, too.
        period = int(motion.time_ns[-1] - motion.time_ns[0]) // max(len(motion) - 1, 1) or 1
        chosen = motion.time_ns // period % step == 0
        chosen[[0, -1]] = True
        rows = np.flatnonzero(chosen)
        columns = slice(0 if motion.owned[0] else self._necks, None)
        names = motion.names[columns]
        if not names:
            return None
        begin_ns = int(motion.time_ns[0]) - STAMP_BEFORE_NS if stamped else now_ns
        times = (motion.time_ns[rows] - begin_ns) * 1e-9
        # Rounding errors at the end become exactly 0: controllers reject a trajectory whose last velocity is not 0.
        velocity, acceleration = motion.velocity[rows, columns].copy(), motion.acceleration[rows, columns].copy()
        velocity[-1], acceleration[-1] = 0.0, 0.0
        self._trajectories.publish(
            trajectory_message(
                begin_ns if stamped else 0, names, times, motion.position[rows, columns], velocity, acceleration
            )
        )
        return int(motion.time_ns[-1])
