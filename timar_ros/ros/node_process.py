"""Runs one node per process: start, spin until a stop request, end in order."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from timar_ros.errors import UserError
from timar_ros.resources import share

if TYPE_CHECKING:
    from timar_ros.ros.base import ManagedNode

SUPERVISED = "TIMAR_SUPERVISOR_PID"
"""Environment variable with the supervisor's process id; its children end with it."""

EXECUTOR = "TIMAR_EXECUTOR"
"""Environment variable: ``single`` or ``events``; default: events if this rclpy has it (Jazzy and later)."""

FAST_DDS_PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Environment variables with a file of Fast DDS profiles: of version 2 (Humble, Jazzy), and of version 3."""

_PR_SET_PDEATHSIG = 1


REPEAT = 3.0
"""Signals within this time after the first [s] count as the same request. Under launch a terminal's or a service
manager's SIGINT comes twice: to the whole process group, and from launch to each of its processes, which on a loaded
machine is more than a second later. Launch sends SIGTERM 5 s after that."""


@contextlib.contextmanager
def interruptible(at_once: Callable[[], bool] = lambda: False) -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set the event and raise nothing; a signal more than REPEAT later raises KeyboardInterrupt.

    :param at_once: whether the first signal also raises KeyboardInterrupt, for work that needs no orderly end.
    """
    stop_requested = threading.Event()
    since = 0.0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal since
        if not stop_requested.is_set():
            since = time.monotonic()
            stop_requested.set()
            if at_once():
                raise KeyboardInterrupt
        elif time.monotonic() - since > REPEAT:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_requested
    finally:
        # After a stop request the process ends, and a repeated signal must not interrupt the end.
        if not stop_requested.is_set():
            for number, handler in previous.items():
                signal.signal(number, handler)


def follow_supervisor() -> None:
    """Make this process end with the supervisor that started it, even if the supervisor is killed."""
    parent = os.environ.get(SUPERVISED)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit("the supervisor has ended")


def repeat_losses_soon() -> None:
    """Have Fast DDS repeat what a reader missed after 0.1 s, unless the user has chosen a profile; before rclpy.init.

    By default a process that was stopped for some seconds can get no new message for another 3 s. Version 3 names the
    settings differently and does not read this variable.
    """
    if not any(os.environ.get(name) for name in FAST_DDS_PROFILES):
        with contextlib.suppress(UserError):  # a copy of the package without its data
            os.environ[FAST_DDS_PROFILES[0]] = str(share("config", "dds", "one_machine.xml"))


def make_executor() -> Executor:
    """The executor that the environment names, with one thread.

    EventsExecutor takes messages as they come and builds no wait set: a third less CPU, a quarter of the latency. Use
    it only with `spin_once`: in the wheels its `spin` loads a core and runs no callback.

    :raises UserError: for another name, or if this rclpy has no such executor.
    """
    name = os.environ.get(EXECUTOR, "")
    if name not in ("", "single", "events"):
        raise UserError(f"{EXECUTOR} is {name!r}: use single or events")
    if name != "single":
        try:
            from rclpy.experimental import EventsExecutor
        except ImportError as error:
            if name == "events":
                raise UserError(f"this rclpy has no EventsExecutor: leave {EXECUTOR} unset") from error
        else:
            executor: Executor = EventsExecutor()
            return executor
    return SingleThreadedExecutor()


def run(node_class: Callable[[], ManagedNode], argv: Sequence[str] | None = None) -> int:
    """Run one node until SIGINT or SIGTERM; returns the process's exit code.

    The node is deactivated and cleaned up while ROS still works, so that its last messages are published: rclpy's own
    signal handler would shut the context down first. One thread: the MultiThreadedExecutor of these releases
    collapses under this load.
    """
    # Worker threads run Python between kernels; the default of 5 ms would delay every callback by 5 ms.
    sys.setswitchinterval(5e-4)
    nodes: list[ManagedNode] = []
    with interruptible(lambda: any(node.loading for node in nodes)) as stop:
        code = _run(node_class, argv, stop, nodes)
    # The node has ended: a later signal must neither interrupt the rest nor print a traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    nodes.clear()
    # Remaining objects keep the DDS participant, which other processes would see for another 20 s.
    rclpy.get_default_context().destroy()
    gc.collect()
    atexit.register(_leave, code)
    return code


def _leave(code: int) -> None:
    """End the process without the interpreter's finalization.

    The node has ended in order by now. Finalization visits all objects several times, which takes a second or more with
    torch, longer than a launch waits; and DDS threads that still run may access destroyed objects.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(
    node_class: Callable[[], ManagedNode], argv: Sequence[str] | None, stop: threading.Event, nodes: list[ManagedNode]
) -> int:
    follow_supervisor()
    repeat_losses_soon()
    try:
        try:
            rclpy.init(args=list(sys.argv if argv is None else argv), signal_handler_options=SignalHandlerOptions.NO)
        except Exception as error:  # rcl's error for wrong --ros-args or an unreadable parameter file has many lines
            raise UserError(f"cannot start: {' '.join(str(error).split())}") from error
        executor = make_executor()
        node = node_class()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    nodes.append(node)
    node.stopping = stop.is_set
    executor.add_node(node)
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.2)
        node.end()
    except KeyboardInterrupt:
        node.get_logger().warning("interrupted twice: ending at once")
        return 130
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    # A fault, such as an incomplete bag: the process that started the node must get it as the exit code.
    return 0 if node.fault is None else 1
