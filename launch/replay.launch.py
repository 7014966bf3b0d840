"""Plays a bag's audio and user motion, in simulated time at any speed (`speed:=0`: as fast as possible)."""

from launch import LaunchDescription

from timar_ros.graph.launching import description


def generate_launch_description() -> LaunchDescription:
    return description(source="bag")
