"""Plays the agent's audio on a loudspeaker, for `audio_sink`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from timar_ros.audio.output_device import Speaker, Timeline
from timar_ros.motion import MODEL_RATE

if TYPE_CHECKING:
    from timar_ros.ros.base import ManagedNode


class Loudspeaker:
    """Plays stamped samples at their time.

    :param node: the node whose clock the stamps follow.
    :param device: name, number, or "default".
    :param rate: rate to open the device with [Hz]; 0: its own.
    """

    def __init__(self, node: ManagedNode, device: str, rate: int) -> None:
        self._node = node
        self._device = device
        self._rate = rate
        self._timeline: Timeline | None = None
        self._speaker: Speaker | None = None
        # Open now, before the first samples: waking a device takes up to a second.
        self._open(MODEL_RATE)

    def add(self, stamp_ns: int, rate: int, samples: npt.NDArray[np.float32]) -> None:
        """Play samples [n], the first at ``stamp_ns``.

        :raises UserError: when another rate needs a new stream, and the device does not open.
        """
        if self._timeline is None or self._timeline.rate != rate:
            self.close()
            self._open(rate)
        assert self._timeline is not None
        self._timeline.add(stamp_ns, samples)

    def cancel(self) -> None:
        """Drop samples that were not played yet."""
        if self._timeline is not None:
            self._timeline.clear()

    def close(self) -> None:
        """Release the device."""
        if self._speaker is not None:
            self._speaker.close()
            self._speaker = None

    @property
    def present(self) -> bool:
        """Whether the device is there."""
        return self._speaker is None or self._speaker.present

    def rows(self) -> dict[str, str]:
        """Rows for the diagnostics."""
        if self._speaker is None:
            return {}
        c = self._speaker.counters
        return {
            "loudspeaker off its time [ms]": f"{c.error_s * 1e3:.2f}",
            "loudspeaker jumps": str(c.jumps),
            "loudspeaker underflows": str(c.underflows),
            "loudspeaker reopened": str(c.reopened),
        }

    def _open(self, rate: int) -> None:
        self._timeline = Timeline(rate)
        self._speaker = Speaker(
            self._timeline,
            self._device,
            clock=self._node.now_ns,
            rate=self._rate,
            report=self._node.get_logger().warning,
        )
