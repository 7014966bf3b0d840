"""The conversational head on a robot: turns, inference, retargeting, and the agent's delayed audio.

Audio comes from a recording, a bag, a microphone, or from topics that others publish (`source:=topics`).
"""

from launch import LaunchDescription

from timar_ros.nodes.launching import description


def generate_launch_description() -> LaunchDescription:
    return description()
