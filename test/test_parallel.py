"""Work on several processes: order, errors, killed children."""

from __future__ import annotations

import os
import signal

import pytest

from timar_ros.errors import UserError
from timar_ros.parallel import loading_processes, run_all


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    raise UserError(f"bad piece {number}")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def threads(number: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_order_and_progress(jobs):
    seen = []
    assert run_all(square, range(7), jobs, lambda done, total: seen.append((done, total))) == [n * n for n in range(7)]
    assert seen == [(n, 7) for n in range(1, 8)]
    assert run_all(square, [], jobs) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_users_error_passes_through(jobs):
    with pytest.raises(UserError, match="bad piece"):
        run_all(refuse, [1, 2, 3], jobs)


def test_a_killed_child_is_one_clear_line():
    with pytest.raises(UserError, match="fewer jobs"):
        run_all(die, [1, 2, 3], 2)


def test_children_use_one_thread_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert run_all(threads, [1, 2], 2) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_little_shared_memory_loads_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs("/")
    values = list(real)
    values[4] = (32 << 20) // real.f_frsize  # f_bavail
    monkeypatch.setattr("timar_ros.parallel.os.statvfs", lambda _: os.statvfs_result(values))
    count, why = loading_processes(4)
    assert count == 0 and "32 MB free" in why and loading_processes(0) == (0, "")
