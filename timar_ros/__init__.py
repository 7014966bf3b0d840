"""TIMAR for ROS 2. `timar_ros.msg` is generated and may lie in another directory of the same name."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
