"""Checks of files: real type, size limits of inputs, and where a command may write."""

from timar_ros.files.writing import atomic_path

__all__ = ["atomic_path"]
