"""One conversation that `timar_inference` serves: its outputs, and its state on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.errors import UserError
from timar_ros.files import atomic_path
from timar_ros.files.reading import READ_ERRORS, check_arrays, plain


@dataclass
class Stream:
    """The conversation of one namespace: a row of the pipeline."""

    row: int
    motion: Any
    info: Any
    state_path: Path | None = None
    interrupted: float = 0.0
    """When the agent was last interrupted (monotonic clock [s])."""

    def save(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Write the conversation's state."""
        if self.state_path is not None:
            with atomic_path(self.state_path) as temporary, temporary.open("wb") as file:
                np.savez(file, **dict[str, Any](state))

    def saved(self) -> dict[str, NDArray[Any]] | None:
        """The saved state, or None.

        :raises UserError: when the file is damaged.
        """
        if self.state_path is None or not self.state_path.exists():
            return None
        try:
            check_arrays(self.state_path)
            with np.load(self.state_path, allow_pickle=False) as archive:
                return dict(archive)
        except READ_ERRORS as error:
            reason = f"{self.state_path} contains no conversation ({plain(error)})"
            raise UserError(f"{reason}: remove it to start again") from error


def prefix(namespace: str) -> str:
    """Prefix of a conversation's topics, relative to the node's own namespace."""
    return f"{namespace.rstrip('/')}/" if namespace else ""


def state_path(file: str, namespace: str) -> Path | None:
    """Path of a conversation's state: the file, with the namespace in its name if there is one."""
    if not file:
        return None
    path = Path(file).expanduser()
    tail = namespace.strip("/").replace("/", "-")
    return path.with_name(f"{path.stem}-{tail}{path.suffix}") if tail else path
