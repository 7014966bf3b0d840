"""Independent pieces of work on several processes, ended cleanly by Ctrl-C or a dying child."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from timar_ros.errors import UserError

Work = TypeVar("Work")
Made = TypeVar("Made")


LEAST_SHARED_MEMORY = 128 << 20
"""Free bytes of /dev/shm below which processes that load data would hang: containers have 64 MB."""


def loading_processes(wanted: int, folder: str = "/dev/shm") -> tuple[int, str]:  # noqa: S108 (only looked at)
    """How many processes may load data, and the reason for fewer than wanted, in words; "" if all may.

    Loaded batches travel through shared memory. With too little of it, this process loads them.
    """
    try:
        free = os.statvfs(folder)
    except OSError:
        return wanted, ""
    left = free.f_bavail * free.f_frsize
    if not wanted or left >= LEAST_SHARED_MEMORY:
        return wanted, ""
    return 0, (
        f"{folder} has {left >> 20} MB free, too little for {wanted} loading processes: data are loaded in this one "
        "(docker run --shm-size=1g gives more)"
    )


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let children started inside use one thread: they already fill the cores. BLAS reads these variables at import."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_all(
    function: Callable[[Work], Made],
    work: Sequence[Work],
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Made]:
    """``[function(piece) for piece in work]``, in that order, whichever piece finishes first.

    :param function: from a module's top level, so that other processes find it.
    :param jobs: number of processes; with one, or one piece, this process does all work.
    :param progress: called with (done, total) after each piece.
    :raises UserError: a process was killed. Errors of the function are passed on, and the remaining pieces are not
        begun.
    """
    if jobs <= 1 or len(work) < 2:
        results = []
        for piece in work:
            results.append(function(piece))
            if progress is not None:
                progress(len(results), len(work))
        return results
    # Spawned, not forked: a progress bar's thread may hold a lock at the moment of a fork.
    with (
        _one_thread_each(),
        ProcessPoolExecutor(min(jobs, len(work)), get_context("spawn"), _leave_interrupts_to_parent) as pool,
    ):
        running = [pool.submit(function, piece) for piece in work]
        try:
            for done, future in enumerate(as_completed(running), start=1):
                future.result()
                if progress is not None:
                    progress(done, len(work))
        except BrokenProcessPool as error:
            raise UserError("a worker process was killed (out of memory?); run again with fewer jobs") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in running]
