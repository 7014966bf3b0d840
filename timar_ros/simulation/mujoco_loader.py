"""Imports MuJoCo so that it draws without a screen if an OpenGL library exists, and runs without one."""

from __future__ import annotations

import ctypes.util
import os
from typing import Any

from timar_ros.errors import require

INSTALL = "pip install mujoco"


def load_mujoco(purpose: str) -> Any:
    """The module ``mujoco``.

    At its first import MuJoCo chooses its OpenGL by the environment variable MUJOCO_GL; the default needs a screen. A
    value set by the user is kept.

    :param purpose: the use of MuJoCo, for the message if it is not installed.
    :raises MissingDependencyError: MuJoCo is not installed.
    """
    if "MUJOCO_GL" not in os.environ:
        backends = {"egl": "EGL", "osmesa": "OSMesa"}
        found = (name for name, library in backends.items() if ctypes.util.find_library(library))
        os.environ["MUJOCO_GL"] = next(found, "disable")
    return require("mujoco", INSTALL, purpose)
