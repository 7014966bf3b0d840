"""Errors that are the user's to mend: one clear line, exit code 2, never a traceback."""

from __future__ import annotations

import importlib
from types import ModuleType


class UserError(Exception):
    """Bad input or a bad environment. The message says what was wrong, where, and what to do, in one line."""


class MissingDependencyError(UserError):
    """An optional library is not installed; the message says how to install it."""


def require(module: str, install: str, purpose: str) -> ModuleType:
    """Import an optional module by name, or say in one line what to install.

    :param module: the module's import name, such as ``"torch"``.
    :param install: what the user is to run, such as ``"pip install 'torch>=2.4'"``.
    :param purpose: what it is needed for, as a noun phrase.
    :raises MissingDependencyError: when the module, or one that it needs, is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise MissingDependencyError(f"{purpose} needs the Python package '{missing}': {install}") from error


_DISTRIBUTIONS = {"yaml": "PyYAML", "sklearn": "scikit-learn", "webrtcvad": "webrtcvad-wheels"}
_ROS = ("rclpy", "launch", "launch_ros", "ament_index_python", "builtin_interfaces")


def not_installed(error: ModuleNotFoundError) -> MissingDependencyError:
    """What to tell a user whose installation lacks a module, in one line.

    :raises ModuleNotFoundError: the given error, when what is missing is one of this package's own files: a mistake of
        ours and not of the user's.
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
