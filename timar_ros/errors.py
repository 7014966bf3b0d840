"""Errors that the user can fix: one clear line, exit code 2, never a traceback."""

from __future__ import annotations

import importlib
from types import ModuleType


class UserError(Exception):
    """Bad input or a bad environment. The message says what was wrong, where, and what to do, in one line."""


class MissingDependencyError(UserError):
    """An optional library is not installed; the message says how to install it."""


def require(module: str, install: str, purpose: str) -> ModuleType:
    """Import an optional module by name; otherwise the error says in one line what to install.

    :param module: the module's import name, such as ``"torch"``.
    :param install: the user's install command, such as ``"pip install 'torch>=2.4'"``.
    :param purpose: the module's use, as a noun phrase.
    :raises MissingDependencyError: when the module, or one that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise MissingDependencyError(f"{purpose} needs the Python package '{missing}': {install}") from error


_DISTRIBUTIONS = {
    "yaml": "PyYAML",
    "collada": "pycollada",
    "cv2": "opencv-contrib-python",
    "pythonosc": "python-osc",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "webrtcvad": "webrtcvad-wheels",
}
_ROS = ("rclpy", "launch", "launch_ros", "ament_index_python", "builtin_interfaces")


def not_installed(error: ModuleNotFoundError) -> MissingDependencyError:
    """The one-line error for an installation that lacks a module.

    :raises ModuleNotFoundError: the given error, when the missing module is one of this package's own files: a bug, not
        the user's mistake.
    """
    name = error.name or ""
    top = name.split(".")[0]
    if name.startswith(("timar_ros.msg", "timar_ros.srv")):
        return MissingDependencyError("the interfaces of timar_ros are not built: run `make setup` or `colcon build`")
    if top in ("", "timar_ros"):
        raise error
    if top in _ROS or top.endswith(("_msgs", "_srvs")):
        return MissingDependencyError(
            f"ROS 2's '{top}' was not found: source ROS 2's setup.bash (docs/installation.md)"
        )
    what = _DISTRIBUTIONS.get(top, top)
    return MissingDependencyError(f"the Python package '{what}' is not installed: pip install {what}")
