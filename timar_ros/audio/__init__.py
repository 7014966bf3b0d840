"""Sound devices: microphones and loudspeakers on the ROS clock. No rclpy here; the nodes only carry messages."""
