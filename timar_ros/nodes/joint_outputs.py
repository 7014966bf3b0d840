"""Joint motion to the topics of a robot: trajectories, forward commands, a pose; and always joint states."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from timar_ros.nodes import qos
from timar_ros.nodes.endpoints import EndpointNode
from timar_ros.nodes.joint_messages import doubles, trajectory_message
from timar_ros.nodes.messages import MessageError, to_stamp
from timar_ros.retarget import JointMotion, RobotProfile

STAMP_BEFORE_NS = 10_000_000
"""A stamped trajectory begins so long before its first point: times of points are above 0."""


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
        self._forward = node.publish_on(Float64MultiArray, "commands", qos.commands()) if kind == "forward" else None
        self._pose = node.publish_on(PoseStamped, "head_pose", qos.commands()) if kind == "pose" else None

    @property
    def trajectory_topic(self) -> str:
        """Full name of the topic of trajectories."""
        return str(self._trajectories.topic_name)

    def send(self, motion: JointMotion, begin: int, end: int) -> None:
        """Publish rows that are due: each as a joint state, the newest as a forward command, pose and mouth."""
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

    def _send_states(self, motion: JointMotion, rows: range) -> None:
        message = self._state  # one message is filled again and again: at this rate making new ones costs
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
        """Publish a motion that ends at rest as a trajectory; returns when it ends, None if there was nothing to send.

        :param stamped: stamp it with a time just before its first point, which may have passed; else with 0, and its
            times count from ``now_ns``, after which all of it must lie.
        :param step: every how many commands there is a point.
        """
        if self.kind != "trajectory" or not len(motion):
            return None
        # On a grid that all trajectories share: two that say the same are then interpolated to the same as well.
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
        # At rest to within rounding is meant as at rest: controllers refuse a last velocity that is not 0.
        velocity, acceleration = motion.velocity[rows, columns].copy(), motion.acceleration[rows, columns].copy()
        velocity[-1], acceleration[-1] = 0.0, 0.0
        self._trajectories.publish(
            trajectory_message(
                begin_ns if stamped else 0, names, times, motion.position[rows, columns], velocity, acceleration
            )
        )
        return int(motion.time_ns[-1])
