"""A simulated robot head: controllers, dynamics (MuJoCo) and pictures. Neither ROS nor torch is needed."""
