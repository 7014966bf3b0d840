"""Quality of service by kind of stream. Parameters ``qos_overrides.*`` can override each profile.

Audio is reliable, with a queue for a minute of 20 ms chunks: a speech synthesizer sends a whole answer at once (best
effort with a depth of 5, as for sensors, loses audio silently). Commands are reliable because the controllers of
ros2_controllers subscribe reliably.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _reliable(depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability
    )


def audio() -> QoSProfile:
    """Audio chunks; 3000 chunks of 20 ms are a minute."""
    return _reliable(3000)


def motion() -> QoSProfile:
    """FLAME motion of the agent (one message per turn or hop) and of trackers: 500 frames are 20 s.

    A player that waits only for answers sends the motion of several turns at once.
    """
    return _reliable(500)


def turns() -> QoSProfile:
    """Turns, one a second, or hops, at most ten a second."""
    return _reliable(100)


def latched() -> QoSProfile:
    """State for late subscribers, too: the newest message only."""
    return _reliable(1, DurabilityPolicy.TRANSIENT_LOCAL)


def commands() -> QoSProfile:
    """Joint commands and joint states."""
    return _reliable(10)


def diagnostics() -> QoSProfile:
    """``/diagnostics``, as the diagnostics package subscribes."""
    return _reliable(10)
