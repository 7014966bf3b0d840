"""FLAME frames to joint commands within a robot's limits. Needs neither ROS nor torch."""

from timar_ros.retarget.joint_motion import JointMotion, write_joints_csv
from timar_ros.retarget.profile import RobotProfile, list_profiles, load_profile
from timar_ros.retarget.retarget_options import RetargetOptions
from timar_ros.retarget.retargeter import Retargeter
from timar_ros.retarget.whole_motion import retarget_motion

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
