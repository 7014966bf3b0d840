"""The conversational head on a robot: turns, inference, retargeting, and the agent's delayed audio.

Audio comes from a recording, a bag, a microphone, or from topics that others publish (`source:=topics`).

Made to be included in a robot's own launch file: a node that fails is told, but ends nothing else (`keep_going:=false`
for the contrary). Arguments are launch configurations, which an included file shares with its parent: include it in a
group of its own (docs/deployment.md).
"""

from launch import LaunchDescription

from timar_ros.nodes.launching import description


def generate_launch_description() -> LaunchDescription:
    return description(keep_going=True)
