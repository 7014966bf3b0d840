"""The conversational head on a robot: turns, inference, retargeting, and the agent's delayed audio.

Audio comes from a recording, a bag, a microphone, or from other nodes' topics (`source:=topics`).

A robot's own launch file can include this file: the launch logs a failed node and continues (`keep_going:=false` ends
it). Arguments are launch configurations, which an included file shares with its parent, so include this file in a
separate group (docs/deployment.md).
"""

from launch import LaunchDescription

from timar_ros.graph.launching import description


def generate_launch_description() -> LaunchDescription:
    return description(keep_going=True)
