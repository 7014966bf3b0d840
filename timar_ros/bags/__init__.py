"""Recorded runs (ROS 2 bags): read, written, converted and replayed without ROS."""
