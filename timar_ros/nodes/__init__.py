"""ROS 2 nodes: thin files that move messages in and out of the core, and the graph that wires them."""
