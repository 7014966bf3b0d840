"""Two hosts on one machine: network namespaces joined by a link with delay, loss and cuts.

The link is made of two TAP devices and this process between them, which works on every kernel that has TUN (netem is a
module that many small kernels lack). Needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000


def reason() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if shutil.which("ip") is None:
        return "needs iproute2 (apt install iproute2)"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    tried = subprocess.run(["ip", "netns", "add", f"timar{os.getpid()}t"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"cannot make a network namespace: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", f"timar{os.getpid()}t"], check=False)
    return None


def _tap(namespace: str) -> int:
    """A TAP device `link0` in the namespace; returns its file."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH", b"link0", _IFF_TAP | _IFF_NO_PI))
    finally:
        libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        os.close(there)
    return tap


def _destination(packet: bytes) -> str:
    """Where an Ethernet frame's content goes to: an IPv4 address, or the kind of another protocol."""
    kind = int.from_bytes(packet[12:14], "big")
    if kind == 0x0800:
        return ".".join(str(part) for part in packet[30:34])
    return {0x0806: "arp", 0x86DD: "ipv6"}.get(kind, hex(kind))


class TwoHosts:
    """Namespaces ``names[0]`` (10.77.0.1) and ``names[1]`` (10.77.0.2), and the link between them.

    :param delay: one way [s].
    :param loss: share of packets that are lost, each way.
    """

    def __init__(self, delay: float = 0.0, loss: float = 0.0, seed: int = 0) -> None:
        self.delay = delay
        self.loss = loss
        self.is_cut = False
        self.bytes = [0, 0]
        self.packets_lost = 0
        self.destinations: Counter[str] = Counter()
        """Packets by the address they were sent to."""
        self.addresses = ("10.77.0.1", "10.77.0.2")
        self.names = (f"timar{os.getpid()}a", f"timar{os.getpid()}b")
        self._random = random.Random(seed)
        self._quit = threading.Event()
        self._taps: list[int] = []
        try:
            for name, address in zip(self.names, self.addresses, strict=True):
                subprocess.run(["ip", "netns", "add", name], check=True)
                self._taps.append(_tap(name))
                silent = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"  # the kernel talks by itself there
                subprocess.run(["ip", "netns", "exec", name, "sh", "-c", silent], check=False)
                for command in (
                    ["addr", "add", f"{address}/24", "dev", "link0"],
                    ["link", "set", "link0", "up"],
                    ["link", "set", "lo", "up"],
                    ["route", "add", "224.0.0.0/4", "dev", "link0"],
                ):
                    subprocess.run(["ip", "-n", name, *command], check=True)
        except BaseException:
            self._remove()
            raise
        self._thread = threading.Thread(target=self._carry, name="link", daemon=True)
        self._thread.start()

    def command(self, host: int, command: Sequence[str]) -> list[str]:
        """The command line that runs ``command`` on a host (0 or 1)."""
        return ["ip", "netns", "exec", self.names[host], *command]

    def cut(self) -> None:
        """Nothing gets through any more."""
        self.is_cut = True

    def mend(self) -> None:
        """The link is whole again."""
        self.is_cut = False

    def close(self) -> None:
        """Remove link and hosts; processes in them must have ended."""
        self._quit.set()
        self._thread.join()
        self._remove()

    def _remove(self) -> None:
        for tap in self._taps:
            os.close(tap)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _carry(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        count = 0
        while not self._quit.is_set():
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, to, packet = heapq.heappop(waiting)
                try:
                    os.write(self._taps[to], packet)
                except OSError:  # the other side's queue is full: a real link drops it, too
                    self.packets_lost += 1
            timeout = 0.05 if not waiting else max(0.0, min(0.05, waiting[0][0] - now))
            for tap in select.select(self._taps, [], [], timeout)[0]:
                side = self._taps.index(tap)
                packet = os.read(tap, 65536)
                self.bytes[side] += len(packet)
                self.destinations[_destination(packet)] += 1
                if self.is_cut or self._random.random() < self.loss:
                    self.packets_lost += 1
                    continue
                count += 1
                heapq.heappush(waiting, (time.monotonic() + self.delay, count, 1 - side, packet))
