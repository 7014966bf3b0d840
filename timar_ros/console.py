"""Output of commands: tables and progress bars (rich) in one style."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

console = Console(highlight=False)
stderr = Console(highlight=False, stderr=True)


LINE_PERIOD = 30.0
"""Where there is no terminal, a line about the progress is printed this often [s]."""


class _ProgressLines(Progress):
    """Progress as a line of text every :data:`LINE_PERIOD`, for log files and pipes."""

    def __init__(self) -> None:
        super().__init__(console=stderr, disable=True)
        self._line_at = time.monotonic() + LINE_PERIOD

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._print_line(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._print_line(task_id)

    def _print_line(self, task_id: TaskID) -> None:
        now = time.monotonic()
        task = self._tasks[task_id]
        if now < self._line_at or not task.visible:
            return
        self._line_at = now + LINE_PERIOD
        total = "" if task.total is None else f" of {task.total:.0f}"
        left = None if task.total is None else task.time_remaining
        eta = "" if left is None else f", ETA {left / 60:.0f} min" if left >= 60 else f", ETA {left:.0f} s"
        stderr.print(f"{task.description}: {task.completed:.0f}{total}{eta}", markup=False, soft_wrap=True)


def progress() -> Progress:
    """A progress display; use it in a `with` statement and add tasks to it.

    On a terminal it shows a bar, the count, the time and the ETA; elsewhere it prints a line now and then.
    """
    if not stderr.is_terminal:
        return _ProgressLines()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=stderr,
    )


def staged(bar: Progress) -> Callable[[str, int, int], None]:
    """A report of (stage, done, total): each stage is a task of the display, added with its first report."""
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    return report


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table; all columns except the first are right-aligned, for numbers."""
    rich_table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        rich_table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        rich_table.add_row(*(str(cell) for cell in row))
    return rich_table
