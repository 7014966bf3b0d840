"""A DDS domain of one's own, so that two runs on one machine do not hear each other."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

from timar_ros.errors import UserError

LOCK_PORT = 21000
HIGHEST = 101
"""Above it DDS's ports meet the system's ephemeral ports."""


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """A domain id that nobody else who asks here has meanwhile; a bound socket is the lock.

    :raises UserError: when all are taken.
    """
    for domain in random.sample(range(1, HIGHEST + 1), HIGHEST):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as lock, socket.socket(type=socket.SOCK_DGRAM) as probe:
            try:
                lock.bind(("127.0.0.1", LOCK_PORT + domain))
                # The first unicast discovery port of the domain: taken where any ROS process runs in it.
                probe.bind(("", 7400 + 250 * domain + 10))
            except OSError:
                continue
            probe.close()
            yield domain
            return
    raise UserError("no free DDS domain on this machine: set ROS_DOMAIN_ID yourself")
