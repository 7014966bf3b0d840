"""One node a process: start, spin until told to stop, end in order."""

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

if TYPE_CHECKING:
    from timar_ros.nodes.base import ManagedNode

SUPERVISED = "TIMAR_SUPERVISOR_PID"
"""Environment variable by which a supervisor's children know whose end is theirs too."""

EXECUTOR = "TIMAR_EXECUTOR"
"""Environment variable: ``single`` or ``events``; by default events where this rclpy has it (Jazzy and later)."""

_PR_SET_PDEATHSIG = 1


REPEAT = 1.0
"""Signals that follow the first within so long [s] are the same wish. Under launch a terminal's or a service manager's
SIGINT comes twice: to the whole process group, and from launch to each of its processes."""


@contextlib.contextmanager
def interruptible(at_once: Callable[[], bool] = lambda: False) -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set the event instead of raising; one that comes more than REPEAT later interrupts.

    :param at_once: whether the first one is to raise KeyboardInterrupt as well, for work that needs no orderly end.
    """
    asked = threading.Event()
    since = 0.0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal since
        if not asked.is_set():
            since = time.monotonic()
            asked.set()
            if at_once():
                raise KeyboardInterrupt
        elif time.monotonic() - since > REPEAT:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        # Who was told to end ends now, and a repeat must not interrupt the end.
        if not asked.is_set():
            for number, handler in before.items():
                signal.signal(number, handler)


def follow_supervisor() -> None:
    """End with the supervisor that started this process, even if it is killed."""
    parent = os.environ.get(SUPERVISED)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit("the supervisor is gone")


def make_executor() -> Executor:
    """The executor that the environment asks for, each with one thread.

    EventsExecutor takes messages as they come instead of building a wait set for each: a third less CPU, a quarter of
    the latency. Only ever spun by `spin_once`: in the wheels its `spin` burns a core and serves nothing.

    :raises UserError: for another name, or where this rclpy has no such executor.
    """
    wanted = os.environ.get(EXECUTOR, "")
    if wanted not in ("", "single", "events"):
        raise UserError(f"{EXECUTOR} is {wanted!r}: use single or events")
    if wanted != "single":
        try:
            from rclpy.experimental import EventsExecutor
        except ImportError as error:
            if wanted == "events":
                raise UserError(f"this rclpy has no EventsExecutor: leave {EXECUTOR} unset") from error
        else:
            made: Executor = EventsExecutor()
            return made
    return SingleThreadedExecutor()


def run(node_class: Callable[[], ManagedNode], argv: Sequence[str] | None = None) -> int:
    """Run one node until SIGINT or SIGTERM; returns the process's exit code.

    The node is deactivated and cleaned up while ROS still works, so that last messages go out: rclpy's own signal
    handler would shut the context down first. One thread: the MultiThreadedExecutor of these releases collapses under
    this load.
    """
    # Worker threads run Python between kernels; at the default of 5 ms they would delay every callback by that much.
    sys.setswitchinterval(5e-4)
    made: list[ManagedNode] = []
    with interruptible(lambda: any(node.loading for node in made)) as stop:
        code = _run(node_class, argv, stop, made)
    made.clear()
    # What is left of the node holds the DDS participant, which others would see for another 20 s.
    rclpy.get_default_context().destroy()
    gc.collect()
    atexit.register(_leave, code)
    return code


def _leave(code: int) -> None:
    """End the process without taking the interpreter and its libraries apart.

    The node has ended in order by now. Taking apart looks several times through all objects, a second or more once
    torch is loaded, for which a launch would not wait; and DDS threads that still run may meet what is gone already.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(
    node_class: Callable[[], ManagedNode], argv: Sequence[str] | None, stop: threading.Event, made: list[ManagedNode]
) -> int:
    follow_supervisor()
    try:
        try:
            rclpy.init(args=list(sys.argv if argv is None else argv), signal_handler_options=SignalHandlerOptions.NO)
        except Exception as error:  # what rcl says of wrong --ros-args or an unreadable parameter file, on many lines
            raise UserError(f"cannot start: {' '.join(str(error).split())}") from error
        executor = make_executor()
        node = node_class()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    made.append(node)
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
    # Such as a bag that could not be written whole: whoever started the node must learn of it.
    return 0 if node.fault is None else 1
