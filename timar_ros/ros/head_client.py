"""A client of a robot's conversational head, for programs without ROS code: say, cancel, reset, hear, get motion.

.. code-block:: python

    from timar_ros.ros import Head

    with Head(namespace="robot1") as head:
        head.on_motion(lambda times, frames: print(times[0], frames.shape))
        head.say(pcm, 24000)            # float or int16, any rate, faster than real time, whole or in chunks
        head.finish()                   # the utterance is complete
        head.wait()                     # until the loudspeaker has played it
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from timar_ros.audio.speech_queue import Played, SpeechQueue, mono_pcm, needed_lead
from timar_ros.errors import UserError
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo
from timar_ros.ros import qos
from timar_ros.ros.messages import audio_chunk_message, audio_message, motion, to_ns, to_stamp

MotionCallback = Callable[[NDArray[np.float64], NDArray[np.float32]], None]

PERIOD = 0.05
"""How often the client checks waiting speech [s]."""
CANCEL_ANSWER = 0.3
"""Longest time that new speech waits for a cancel to come back from the graph [s]."""
OTHERS = 0.03
"""Time for a cancel to reach the other nodes after it came back [s]: they drop only speech from before the cancel."""
SERVER = "timar_inference"
"""The node that offers the services."""
MARGIN = 2.0
"""How long :meth:`Head.wait` waits beyond the expected end of the speech [s]."""


def lead_of(info: StreamInfo) -> float:
    """How long before its time the running graph needs the agent's speech [s]."""
    return needed_lead(
        info.mode,
        turn_seconds=float(info.turn_duration),
        planning_lead=float(info.planning_lead),
        look_ahead=float(info.look_ahead),
    )


class Head:
    """The head of a running graph (``timar up``, or a launch file). Thread-safe; use it in a ``with`` statement.

    :param namespace: the graph's namespace, such as ``robot1``; empty: none.
    :param lead: how long before its time the client publishes speech [s]; None: as long as the graph's mode needs.
    :param timeout: how long to wait for the graph [s].
    :param use_sim_time: take time from ``/clock``.
    :raises UserError: when no graph answers in this namespace, or the lead is less than the graph's mode needs.
    """

    def __init__(
        self, namespace: str = "", *, lead: float | None = None, timeout: float = 10.0, use_sim_time: bool = False
    ) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue = SpeechQueue()
        self._info: StreamInfo | None = None
        self._held_until = 0.0
        self._partner: tuple[int, int, int] | None = None  # stream, rate, next sample's index
        self._partner_streams = 0
        self._motion_callbacks: list[MotionCallback] = []
        self._cancel_callbacks: list[Callable[[], None]] = []
        self._closing = threading.Event()
        self._context = Context()
        try:
            rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
            self._node = rclpy.create_node(
                "head_client",
                namespace=namespace,
                context=self._context,
                use_global_arguments=False,
                parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)],
            )
        except Exception as error:
            self._context.try_shutdown()
            raise UserError(f"cannot join ROS 2 as namespace '{namespace}': {' '.join(str(error).split())}") from error
        node = self._node
        self._agent = node.create_publisher(AudioChunk, "agent/audio", qos.audio())
        self._user = node.create_publisher(AudioChunk, "user/audio", qos.audio())
        self._cancels = node.create_publisher(Header, "cancel", qos.commands())
        node.create_subscription(StreamInfo, "stream_info", self._take_info, qos.latched())
        node.create_subscription(AudioChunk, "agent/audio_out", self._take_played, qos.audio())
        node.create_subscription(FlameMotion, "agent/motion", self._take_motion, qos.motion())
        node.create_subscription(Header, "cancel", self._take_cancel, qos.commands())
        self._services = {name: node.create_client(Trigger, f"{SERVER}/{name}") for name in ("cancel", "reset")}
        node.create_timer(PERIOD, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name="head_client", daemon=True)
        self._thread.start()
        try:
            self._connect(namespace, timeout)
            self._choose_lead(lead)
        except BaseException:
            self.close()
            raise

    # Life -----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Head:  # noqa: PYI034 (typing.Self needs 3.11)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph. The head still says speech that was published already."""
        if self._closing.is_set():
            return
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _spin(self) -> None:
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                break

    def _connect(self, namespace: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        place = f"in namespace '{namespace}'" if namespace else "without a namespace"
        with self._changed:
            while self._info is None:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise UserError(
                        f"no graph {place} answered in {timeout:g} s: start it ('timar up'), and give both the same "
                        "ROS_DOMAIN_ID and namespace"
                    )
        while not self._agent.get_subscription_count():
            if time.monotonic() >= deadline:
                raise UserError(f"no node {place} subscribes to agent/audio: is turn_segmenter active?")
            time.sleep(0.01)

    def _choose_lead(self, lead: float | None) -> None:
        assert self._info is not None
        needed = lead_of(self._info)
        if lead is not None and not (np.isfinite(lead) and lead >= needed - 1e-6):
            raise UserError(f"a lead of {lead:g} s is too short: mode {self._info.mode} needs {needed:g} s")
        with self._lock:
            self._queue.lead = needed if lead is None else float(lead)

    # The agent ------------------------------------------------------------------------------------------------------

    @property
    def lead(self) -> float:
        """Time from the call of :meth:`say` to an utterance's first sample [s], without the playback delay."""
        return self._queue.lead

    @property
    def mode(self) -> str:
        """The graph's mode: reactive, anticipatory or rolling."""
        assert self._info is not None
        return str(self._info.mode)

    def say(self, samples: Any, rate: int) -> int:
        """Append audio to the head's speech; returns at once, with the utterance's number.

        :param samples: float in [-1, 1] or int16, [n] or [n, channels], or bytes of int16; any length.
        :param rate: samples per second [Hz].
        :raises UserError: for invalid audio.
        """
        data = mono_pcm(samples, rate)
        with self._lock:
            number = self._queue.say(data, rate)
            self._publish()
        return number

    def waiting(self) -> float:
        """Length of the speech that is not published yet [s]; the client publishes it shortly before its time."""
        with self._lock:
            return self._queue.waiting_seconds

    def finish(self) -> None:
        """Complete the utterance. The next :meth:`say` begins another one."""
        with self._lock:
            self._queue.finish()
            self._publish()

    def cancel(self) -> None:
        """Stop speaking now and drop unsaid speech; the head says later speech."""
        with self._lock:
            self._queue.cancel()
            self._held_until = time.monotonic() + CANCEL_ANSWER
        if self._services["cancel"].service_is_ready():
            self._services["cancel"].call_async(Trigger.Request())
        else:
            self._cancels.publish(Header(stamp=to_stamp(self._now_ns())))

    stop = cancel

    def reset(self, timeout: float = 5.0) -> None:
        """Reset the conversation's history, for a new partner.

        :raises UserError: when the graph does not answer in time.
        """
        client = self._services["reset"]
        deadline = time.monotonic() + timeout
        if client.wait_for_service(timeout_sec=timeout):
            done = threading.Event()
            answer = client.call_async(Trigger.Request())
            answer.add_done_callback(lambda _: done.set())
            if done.wait(max(0.0, deadline - time.monotonic())):
                if not answer.result().success:
                    raise UserError(f"{client.srv_name} refused: {answer.result().message}")
                return
        raise UserError(f"{client.srv_name} did not answer in {timeout:g} s: is {SERVER} active?")

    def played(self) -> Played:
        """Progress of the loudspeaker: utterance, seconds of it, and whether it plays now.

        The source is ``agent/audio_out``, which `audio_sink` publishes when the sound is due.
        """
        with self._lock:
            return self._queue.played(self._now_ns())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the loudspeaker has played all speech; False if it has not after ``timeout`` [s].

        Without a timeout, wait for the length of the speech and two seconds more.
        """
        started = time.monotonic()
        with self._changed:
            while not self._closing.is_set():
                now_ns = self._now_ns()
                delay = 0.0 if self._info is None else float(self._info.playback_delay)
                over_ns = self._queue.said_until_ns + round(delay * 1e9)
                state = self._queue.played(now_ns)
                last = self._queue.last_said
                if self._queue.empty and (
                    last is None
                    or (state.utterance == last[0] and not state.speaking and state.seconds >= last[1] - 1e-3)
                ):
                    return True
                if timeout is None and self._queue.empty and now_ns > over_ns + round(MARGIN * 1e9):
                    return False
                if timeout is not None and time.monotonic() - started > timeout:
                    return False
                self._changed.wait(PERIOD)
        return False

    # The partner ----------------------------------------------------------------------------------------------------

    def hear(self, samples: Any, rate: int) -> None:
        """Publish the partner's audio from a call or a room; not needed if the graph has a microphone.

        :param samples: as for :meth:`say`; the last sample was spoken now.
        :raises UserError: for invalid audio.
        """
        data = mono_pcm(samples, rate)
        if not len(data):
            return
        with self._lock:
            if self._partner is None or self._partner[1] != rate:
                self._partner_streams += 1
                self._partner = (self._partner_streams, int(rate), 0)
            stream, _, index = self._partner
            stamp_ns = self._now_ns() - round(len(data) * 1e9 / rate)
            self._user.publish(audio_message(stamp_ns, index, int(rate), data, stream_id=stream))
            self._partner = (stream, int(rate), index + len(data))

    # Callbacks ------------------------------------------------------------------------------------------------------

    def on_motion(self, callback: MotionCallback) -> None:
        """Call ``callback(times, frames)`` for every piece of motion, in the client's thread.

        ``times`` [n] are the frames' presentation times in seconds since 1970, ``frames`` [n, 56] FLAME frames
        (`timar_ros.motion` defines the columns).
        """
        self._motion_callbacks.append(callback)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` when this client or another node interrupts the agent, in the client's thread."""
        self._cancel_callbacks.append(callback)

    # The graph's side -----------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _publish(self) -> None:
        with self._lock:
            if self._info is None or time.monotonic() < self._held_until:
                return
            for chunk in self._queue.due(self._now_ns()):
                self._agent.publish(audio_chunk_message(chunk))

    def _take_info(self, message: StreamInfo) -> None:
        with self._changed:
            self._info = message
            self._changed.notify_all()

    def _take_played(self, message: AudioChunk) -> None:
        with self._changed:
            count = len(message.data) // max(1, message.channels)
            self._queue.hear(message.stream_id, message.sample_index, count, to_ns(message.header.stamp))
            self._changed.notify_all()

    def _take_cancel(self, _message: Header) -> None:
        with self._lock:
            if time.monotonic() >= self._held_until:  # another node's cancel: waiting speech is older than it
                self._queue.cancel()
            self._held_until = time.monotonic() + OTHERS
        self._call(self._cancel_callbacks)

    def _take_motion(self, message: FlameMotion) -> None:
        if not self._motion_callbacks:
            return
        chunk = motion(message)
        times = chunk.stamp_ns * 1e-9 + np.arange(len(chunk.frames)) / chunk.rate
        self._call(self._motion_callbacks, times, chunk.frames)

    def _call(self, callbacks: list[Any], *arguments: Any) -> None:
        for callback in callbacks:
            try:
                callback(*arguments)
            except Exception:  # an error of the caller must not end the thread that publishes speech
                self._node.get_logger().error(f"a callback failed:\n{traceback.format_exc()}")
