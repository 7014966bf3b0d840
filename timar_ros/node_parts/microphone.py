"""Publishes a microphone as the user's audio, for `audio_source`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from timar_ros.audio.input_device import Block, Microphone
from timar_ros.motion import MODEL_RATE
from timar_ros.ros.messages import audio_message

if TYPE_CHECKING:
    from timar_ros.ros.base import ManagedNode


class MicrophoneFeed:
    """Publishes a device's audio, in its own thread, until it is closed.

    :param node: the node whose clock stamps the audio; its statistics count the chunks.
    :param publisher: publisher of AudioChunks, called in this object's thread.
    :param device: name, number, or "default".
    :param rate: sample rate to open the device with [Hz]; 0: its own.
    :param channels: 0: one, or two where the device has no mono.
    :param block: length of a chunk [s].
    :raises UserError: when the device does not open.
    """

    def __init__(
        self, node: ManagedNode, publisher: Any, device: str, *, rate: int = 0, channels: int = 0, block: float = 0.02
    ) -> None:
        self._node = node
        self._publisher = publisher
        self._position = (0, 0, MODEL_RATE)
        self._microphone = Microphone(
            device,
            rate=rate,
            channels=channels,
            block_seconds=block,
            clock=node.now_ns,
            report=node.get_logger().warning,
        )
        self.counters = self._microphone.counters
        self._reported = 0
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, name="microphone feed", daemon=True)
        self._thread.start()

    @property
    def present(self) -> bool:
        """Whether the device is there."""
        return self._microphone.present

    def trouble(self) -> int:
        """Faults since the last call: overflows, lost samples, reopenings, dropped blocks."""
        total = sum(vars(self.counters).values())
        grown, self._reported = total - self._reported, total
        return grown

    def close(self) -> None:
        """Stop, and publish the end of the stream."""
        self._quit.set()
        self._thread.join()
        self._microphone.close()
        stream, index, rate = self._position
        if stream:
            end = audio_message(self._node.now_ns(), index, rate, [], stream_id=stream, end=True)
            self._publisher.publish(end)

    def _run(self) -> None:
        publish = self._node.guard("microphone", self._publish)
        while not self._quit.is_set():
            block = self._microphone.read(timeout=0.1)
            if block is None:
                continue
            publish(block)
            self._position = (block.stream_id, block.sample_index + len(block.samples), block.rate)
            self._node.statistics.tick("user/audio")
            self._node.statistics.latency("first sample to published", (self._node.now_ns() - block.stamp_ns) * 1e-9)

    def _publish(self, block: Block) -> None:
        self._publisher.publish(
            audio_message(block.stamp_ns, block.sample_index, block.rate, block.samples, stream_id=block.stream_id)
        )
