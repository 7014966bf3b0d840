"""A simulated robot head: controllers, dynamics (MuJoCo) and pictures. Needs neither ROS nor torch."""
