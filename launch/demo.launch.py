"""Plays the sample conversation with the simulated head, in real time."""

from launch import LaunchDescription

from timar_ros.graph.launching import description
from timar_ros.resources import share


def generate_launch_description() -> LaunchDescription:
    return description(
        source="recording",
        recording=share("samples", "conversation.flac"),
        user_motion=share("samples", "conversation_user.npz"),
        sim="builtin",
    )
