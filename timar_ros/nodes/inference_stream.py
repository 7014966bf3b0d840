"""One conversation that `timar_inference` serves: its outputs, and its memory on disk."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timar_ros.data.files import atomic_path
from timar_ros.errors import UserError


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
        """Write the conversation's memory."""
        if self.state_path is not None:
            with atomic_path(self.state_path) as temporary, temporary.open("wb") as file:
                np.savez(file, **dict[str, Any](state))

    def saved(self) -> dict[str, NDArray[Any]] | None:
        """The memory as it was saved, or None.

        :raises UserError: when the file is damaged.
        """
        if self.state_path is None or not self.state_path.exists():
            return None
        try:
            with np.load(self.state_path, allow_pickle=False) as archive:
                return dict(archive)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.state_path} holds no conversation ({error}): remove it to start anew") from error


def prefix(namespace: str) -> str:
    """What the topics of a conversation begin with, relative to the node's own namespace."""
    return f"{namespace.rstrip('/')}/" if namespace else ""


def state_path(given: str, namespace: str) -> Path | None:
    """Where a conversation is kept: the given file, with the namespace in its name where there is one."""
    if not given:
        return None
    path = Path(given).expanduser()
    tail = namespace.strip("/").replace("/", "-")
    return path.with_name(f"{path.stem}-{tail}{path.suffix}") if tail else path
