"""What every test gets: one thread, checked message fields, a DDS domain of its own that stays on this machine."""

from __future__ import annotations

import logging
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before anything imports numpy, torch or rclpy; child processes inherit them.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also torch's: results then do not depend on the machine's cores
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches for the network
os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="timar_ros_test_log_"))

REPOSITORY = Path(__file__).resolve().parent.parent

OF_THE_SYSTEM = {"ros_domain", "browser", "server"}
"""Fixtures of tests that start nodes, a browser or a sound server: these run one after the other."""


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark that only pytest-xdist acts on."""
    # A plugin of ROS 2's `launch` may have come before: it sets a class of loggers whose messages no test can see.
    logging.setLoggerClass(logging.Logger)
    config.addinivalue_line("markers", "xdist_group(name): tests that one worker runs, one after the other")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2 --dist loadgroup` a file stays whole, and all that needs the system's time is on one worker."""
    of_the_system = {item.module for item in items if OF_THE_SYSTEM & set(item.fixturenames)}
    for item in items:
        group = "system" if item.module in of_the_system else item.module.__name__
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the sources."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' folder of golden values and recordings: TIMAR_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("TIMAR_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "golden" / "cases.json").is_file():
        pytest.skip(f"needs the developers' folder of golden values: no {folder}/golden/cases.json (TIMAR_SHARED)")
    return folder


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A DDS domain that no other test of this machine uses meanwhile; a bound socket is the lock."""
    for domain in random.sample(range(1, 102), 101):  # above 101 DDS ports meet the system's ephemeral ports
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as lock:
            try:
                lock.bind(("127.0.0.1", 21000 + domain))
            except OSError:
                continue
            monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
            yield domain
            return
    pytest.fail("no free DDS domain on this machine")
