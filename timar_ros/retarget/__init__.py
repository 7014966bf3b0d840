"""FLAME frames to joint commands within a robot's limits. Neither ROS nor torch is needed."""

from timar_ros.retarget.motion import JointMotion, write_joints_csv
from timar_ros.retarget.offline import retarget_motion
from timar_ros.retarget.options import RetargetOptions
from timar_ros.retarget.profile import RobotProfile, list_profiles, load_profile
from timar_ros.retarget.retargeter import Retargeter

__all__ = [
    "JointMotion",
    "RetargetOptions",
    "Retargeter",
    "RobotProfile",
    "list_profiles",
    "load_profile",
    "retarget_motion",
    "write_joints_csv",
]
