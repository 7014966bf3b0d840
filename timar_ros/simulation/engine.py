"""Importing MuJoCo so that it can draw without a screen where an OpenGL library is there, and runs where none is."""

from __future__ import annotations

import ctypes.util
import os
from typing import Any

from timar_ros.errors import require

INSTALL = "pip install mujoco"


def load_mujoco(purpose: str) -> Any:
    """The module ``mujoco``.

    It decides once, at its first import, by the environment variable MUJOCO_GL, which OpenGL it draws with; its default
    needs a screen. What the user set is kept.

    :param purpose: what it is needed for, for the message when it is not installed.
    :raises MissingDependencyError: it is not installed.
    """
    if "MUJOCO_GL" not in os.environ:
        backends = {"egl": "EGL", "osmesa": "OSMesa"}
        found = (name for name, library in backends.items() if ctypes.util.find_library(library))
        os.environ["MUJOCO_GL"] = next(found, "disable")
    return require("mujoco", INSTALL, purpose)
