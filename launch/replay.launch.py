"""A bag's audio and user motion through the nodes, in simulated time at any pace (`speed:=0`: as fast as possible)."""

from launch import LaunchDescription

from timar_ros.nodes.launching import description


def generate_launch_description() -> LaunchDescription:
    return description(source="bag")
