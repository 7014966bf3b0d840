"""Raw audio of two speakers to head motion, without ROS: `audio_to_motion.py CONVERSATION.flac OUT.npy`."""

import sys

import numpy as np

from timar_ros.data.audio_files import load_conversation
from timar_ros.streaming import PipelineOptions, generate, resolve_model

user, agent, rate = load_conversation(sys.argv[1])  # left channel the user, right channel the agent, [n] each
motion = generate(resolve_model(), PipelineOptions(seed=0), user, agent, user_rate=rate, agent_rate=rate)
np.save(sys.argv[2], motion)  # [T, 56] at 25 frames a second: 50 expression coefficients, jaw, head pose
print(f"{len(motion)} frames -> {sys.argv[2]}")
