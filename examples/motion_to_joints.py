"""Head motion to a robot's joints within its limits: `motion_to_joints.py MOTION.npz ROBOT JOINTS.csv`.

ROBOT is a name that `timar robots list` shows, or a profile of your own (examples/custom_robot).
"""

import sys

from timar_ros.data.motion_files import read_motion
from timar_ros.retarget import RetargetOptions, load_profile, retarget_motion, write_joints_csv

profile = load_profile(sys.argv[2])
frames = read_motion(sys.argv[1])  # [T, 56] at 25 frames a second
joints = retarget_motion(profile, frames, options=RetargetOptions(speaking_gain=0.8, listening_gain=0.8))
write_joints_csv(joints, sys.argv[3])
for column, joint in enumerate(profile.joints):
    used = joints.position[:, column]
    print(f"{joint.name}: {used.min():+.3f} to {used.max():+.3f} rad of {joint.lower:+.3f} to {joint.upper:+.3f}")
