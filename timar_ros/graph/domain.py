"""A separate DDS domain for each run, so that two runs on one machine do not receive each other's messages."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator

from timar_ros.errors import UserError

LOCK_PORT = 21000
HIGHEST = 101
"""Highest domain id; the DDS ports of higher ones overlap the system's ephemeral ports."""


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """A domain id that no other caller of this function has at the same time; a bound socket is the lock.

    :raises UserError: when all domains are in use.
    """
    for domain in random.sample(range(1, HIGHEST + 1), HIGHEST):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as lock, socket.socket(type=socket.SOCK_DGRAM) as probe:
            try:
                lock.bind(("127.0.0.1", LOCK_PORT + domain))
                # The domain's first unicast discovery port: in use if any ROS process runs in the domain.
                probe.bind(("", 7400 + 250 * domain + 10))
            except OSError:
                continue
            probe.close()
            yield domain
            return
    raise UserError("no free DDS domain on this machine: set ROS_DOMAIN_ID yourself")


def domains_in_use() -> list[int]:
    """Domains of :func:`free_domain` that runs on this machine use."""
    held = []
    for domain in range(1, HIGHEST + 1):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as lock:
            try:
                lock.bind(("127.0.0.1", LOCK_PORT + domain))
            except OSError:
                held.append(domain)
    return held


def choose_domain(domain: int | None) -> int:
    """The domain to observe: the given one, else ROS_DOMAIN_ID, else the domain of a run on this machine, else 0.

    :raises UserError: when it is no domain, or when several runs hold one.
    """
    if domain is None and (named := os.environ.get("ROS_DOMAIN_ID", "")):
        if not named.isdigit():
            raise UserError(f"ROS_DOMAIN_ID is {named!r}: must be a number from 0 to 232")
        domain = int(named)
    if domain is not None:
        if not 0 <= domain <= 232:
            raise UserError(f"domain {domain}: must be from 0 to 232")
        return domain
    held = domains_in_use()
    if len(held) > 1:
        raise UserError(f"several graphs run on this machine, in domains {', '.join(map(str, held))}: give --domain")
    return held[0] if held else 0
