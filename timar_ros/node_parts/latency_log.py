"""A log with the times of every answered turn, to find the causes of latency on a robot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from timar_ros.errors import UserError

if TYPE_CHECKING:
    from timar_ros.node_parts.worker import Job

COLUMNS = ("namespace", "turn", "received", "begun", "model", "published")
"""Times of the machine's monotonic clock [s], comparable between its processes; ``model`` is a duration [s]."""


class LatencyLog:
    """A CSV file with one line per turn.

    :raises UserError: when the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = Path(path).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 (`close` closes it)
        except OSError as error:
            raise UserError(f"'latency_log': cannot write {path}: {error.strerror}") from error
        self._file.write(",".join(COLUMNS) + "\n")

    def write(self, job: Job, started: float, model: float, published: float) -> None:
        """Add a turn's line."""
        times = ",".join(f"{value:.6f}" for value in (job.received, started, model, published))
        self._file.write(f"{job.key},{job.turn.number},{times}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
