"""ROS 2 nodes: thin files between the topics and the core."""
