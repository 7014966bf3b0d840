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
