"""Runs bridge nodes against stand-in publishers in one process; prints JSON (see test_nodes_bridges)."""

from __future__ import annotations

import array
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile

from timar_ros.motion import MODEL_RATE, MOTION_SIZE
from timar_ros.ros import messages
from timar_ros.ros.node_process import make_executor

RATE = MODEL_RATE
TONE = (0.5 * np.sin(np.arange(RATE) * 2 * np.pi * 300 / RATE)).astype(np.float32)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Bench:
    """One node under test and one that plays the rest of the world."""

    def __init__(self, make: Callable[..., Any], **parameters: Any) -> None:
        rclpy.init()
        self.world = Node("world")
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = make(parameter_overrides=overrides)
        self.executor = make_executor() if "TIMAR_EXECUTOR" in os.environ else SingleThreadedExecutor()
        self.executor.add_node(self.world)
        self.executor.add_node(self.node)
        self.status: dict[str, Any] = {}
        self.world.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            level = status.level[0] if isinstance(status.level, bytes) else status.level
            self.status = {"level": level, "message": status.message, **{v.key: v.value for v in status.values}}

    def start(self) -> None:
        """Configure and activate."""
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
        """Spin until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"timed out waiting for {what}; diagnostics: {self.status}")
            self.executor.spin_once(timeout_sec=0.05)

    def finish(self, **result: Any) -> None:
        """Print the result and end."""
        self.node.end()
        print(json.dumps(result))
        self.executor.shutdown()
        self.node.destroy_node()
        self.world.destroy_node()
        rclpy.shutdown()


def audio_bench(**parameters: Any) -> tuple[Bench, list[Any]]:
    """An audio bridge and the list of what it publishes."""
    from timar_ros.msg import AudioChunk
    from timar_ros.nodes.audio_bridge import AudioBridge

    bench = Bench(AudioBridge, **parameters)
    chunks: list[Any] = []
    bench.world.create_subscription(AudioChunk, "user/audio", lambda m: chunks.append(messages.audio(m)), 100)
    return bench, chunks


def summary(chunks: list[Any]) -> dict[str, Any]:
    """What the tests look at."""
    indices = [c.sample_index for c in chunks]
    lengths = [len(c.samples) for c in chunks]
    stamps = [(c.stamp_ns - chunks[0].stamp_ns) * 1e-9 for c in chunks]
    even = max(abs(s - i / chunks[0].rate) for s, i in zip(stamps, indices, strict=True))
    joined = np.concatenate([c.samples[:, 0] for c in chunks])
    return {
        "contiguous": bool(np.array_equal(np.cumsum([0, *lengths[:-1]]), indices)),
        "rate": chunks[0].rate,
        "uneven_ms": even * 1e3,
        "error": float(np.abs(joined - np.resize(TONE, len(joined))).max()),
        "samples": len(joined),
    }


def ros_drivers(kind: str) -> None:
    """AudioData without stamps or AudioDataStamped with them, AudioInfo latched."""
    from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo

    bench, chunks = audio_bench(voice_id="anna" if kind == "voice" else "", input_topic="audio")
    info = AudioInfo(channels=1, sample_rate=RATE, sample_format="S16LE", bitrate=0)
    info.coding_format = "MP3" if kind == "mp3" else "WAVE"
    bench.world.create_publisher(AudioInfo, "audio_info", LATCHED).publish(info)
    cls = AudioDataStamped if kind == "stamped" else AudioData
    topic = "/humans/voices/anna/audio" if kind == "voice" else "audio"
    publisher = bench.world.create_publisher(cls, topic, 100)
    bench.start()
    bench.until(lambda: publisher.get_subscription_count(), "the bridge's subscription")
    bench.until(lambda: bench.node._info.msgtype, "the info's subscription")
    pcm = (TONE * 32768).astype("<i2")
    if kind == "mp3":
        bench.until(lambda: bench.status.get("level") == 2, "an error in the diagnostics")
        bench.finish(status=bench.status, chunks=len(chunks))
        return
    for block in range(50):
        data = AudioData(data=array.array("B", pcm[block * 320 : block * 320 + 320].tobytes()))
        if kind == "stamped":
            data = AudioDataStamped(audio=data)
            data.header.stamp = messages.to_stamp(5_000_000_000 + block * 20_000_000)
        publisher.publish(data)
        bench.until(lambda want=block + 1: len(chunks) >= want, f"chunk {block}")
    bench.until(lambda: "kind" in bench.status and bench.status["kind"], "diagnostics")
    bench.finish(status=bench.status, **summary(chunks))


def mgonzs13() -> None:
    """AudioStamped of 16 bit."""
    from audio_common_msgs.msg import AudioStamped

    bench, chunks = audio_bench(input_topic="audio")
    publisher = bench.world.create_publisher(AudioStamped, "audio", 100)
    bench.start()
    bench.until(lambda: publisher.get_subscription_count(), "the bridge's subscription")
    for block in range(50):
        made = AudioStamped()
        made.header.stamp = messages.to_stamp(5_000_000_000 + block * 20_000_000)
        made.audio.info.format, made.audio.info.channels, made.audio.info.rate = 8, 1, RATE
        made.audio.audio_data.int16_data = [int(v) for v in TONE[block * 320 : block * 320 + 320] * 32768]
        publisher.publish(made)
        bench.until(lambda want=block + 1: len(chunks) >= want, f"chunk {block}")
    bench.until(lambda: "kind" in bench.status and bench.status["kind"], "diagnostics")
    bench.finish(status=bench.status, **summary(chunks))


def missing() -> None:
    """A topic whose type is not installed on the bridge's side."""
    bench, _ = audio_bench(input_topic="audio")
    bench.start()
    bench.until(lambda: bench.status.get("level") == 2, "an error in the diagnostics")
    bench.finish(status=bench.status)


def only_publish() -> None:
    """Publishes AudioData until killed: the other side of `missing`."""
    from audio_common_msgs.msg import AudioData

    rclpy.init()
    node = Node("publisher")
    publisher = node.create_publisher(AudioData, "audio", 10)
    node.create_timer(0.1, lambda: publisher.publish(AudioData()))
    print("publishing", flush=True)
    rclpy.spin(node)


def tf() -> None:
    """A head that nods by 0.25 rad in front of a moving base, in TF."""
    from geometry_msgs.msg import TransformStamped
    from scipy.spatial.transform import Rotation
    from tf2_msgs.msg import TFMessage

    from timar_ros.msg import FlameMotion
    from timar_ros.nodes.head_bridge import HeadBridge

    bench = Bench(HeadBridge, input="tf", face_id="f1", reference_frame="base_link")
    seen: list[Any] = []
    bench.world.create_subscription(FlameMotion, "user/motion", lambda m: seen.append(m), 50)
    static = bench.world.create_publisher(TFMessage, "/tf_static", LATCHED)
    moving = bench.world.create_publisher(TFMessage, "/tf", 100)

    def transform(parent: str, child: str, rotation: Rotation) -> TransformStamped:
        made = TransformStamped(child_frame_id=child)
        made.header.frame_id = parent
        made.header.stamp = bench.world.get_clock().now().to_msg()
        q = rotation.as_quat()
        r = made.transform.rotation
        r.x, r.y, r.z, r.w = (float(v) for v in q)
        return made

    yaw = Rotation.from_euler("z", 0.7)
    static.publish(TFMessage(transforms=[transform("base_link", "camera", yaw)]))
    bench.start()
    nodding = yaw.inv() * Rotation.from_euler("z", np.pi) * Rotation.from_euler("y", 0.25)
    bench.world.create_timer(
        0.02, lambda: moving.publish(TFMessage(transforms=[transform("camera", "face_f1", nodding)]))
    )
    bench.until(lambda: len(seen) >= 5, "motion")
    last = seen[-1]
    bench.finish(pose=list(last.head_pose), expression=len(last.expression), jaw=len(last.jaw), status=bench.status)


def facs() -> None:
    """The agent opens its mouth; FACS, ARKit and mouth say so when it is to be seen."""
    from hri_msgs.msg import FacialActionUnits
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float32

    from timar_ros.msg import FlameMotion
    from timar_ros.nodes.avatar_bridge import AvatarBridge

    bench = Bench(AvatarBridge, facs=True)
    units: list[Any] = []
    shapes: list[Any] = []
    mouths: list[Any] = []
    early: list[float] = []
    bench.world.create_subscription(FacialActionUnits, "agent/facs", units.append, 100)
    bench.world.create_subscription(JointState, "agent/blendshapes", shapes.append, 100)

    def on_mouth(message: Any) -> None:
        mouths.append(message.data)
        early.append(begin + (len(mouths) - 1) * 0.04 - bench.world.get_clock().now().nanoseconds * 1e-9)

    bench.world.create_subscription(Float32, "agent/mouth", on_mouth, 100)
    publisher = bench.world.create_publisher(FlameMotion, "agent/motion", 50)
    bench.start()
    outputs = ("agent/facs", "agent/blendshapes", "agent/mouth")
    bench.until(lambda: publisher.get_subscription_count(), "the bridge")
    bench.until(lambda: all(bench.node.count_subscribers(t) for t in outputs), "subscribers")
    frames = np.zeros((25, MOTION_SIZE), np.float32)
    frames[:, 50] = np.linspace(0, 0.4, 25)
    now = bench.world.get_clock().now().nanoseconds + 200_000_000
    begin = now * 1e-9
    publisher.publish(messages.motion_message(now, 25.0, frames, turn=0))
    bench.until(lambda: len(mouths) >= 25 and len(units) >= 25 and len(shapes) >= 25, "25 frames of each")
    drop = [float(u.intensity[26]) for u in units]
    opened = [m.position[list(m.name).index("jawOpen")] for m in shapes]
    bench.finish(drop=drop, opened=opened, mouth=mouths, earliest=max(early))


def tts() -> None:
    """Goals of ROS4HRI's action: one is heard, one fails, one is taken back while it is said, one while it waits."""
    from action_msgs.msg import GoalStatus
    from rclpy.action import ActionClient
    from std_msgs.msg import Header
    from tts_msgs.action import TTS

    from timar_ros.msg import StreamInfo
    from timar_ros.nodes.audio_sink import AudioSink
    from timar_ros.nodes.speech import Speech

    # Reads a text; fails at "bad", speaks 0.1 s for each other letter, and without end for "on".
    code = (
        "import sys; t = sys.stdin.read().strip(); o = sys.stdout.buffer; w = lambda n: o.write(bytes([232, 3]) * n)\n"
        "if t == 'bad': sys.exit('no such voice')\n"
        "w(1600 * len(t))\n"
        "while t == 'on': w(1600)"
    )
    bench = Bench(Speech, engine="command", command=f"{sys.executable} -c {shlex.quote(code)}", command_rate=16000)
    sink = AudioSink()
    bench.executor.add_node(sink)
    info = bench.world.create_publisher(StreamInfo, "stream_info", LATCHED)
    info.publish(StreamInfo(mode="reactive", turn_duration=1.0, playback_delay=0.0))
    cancels: list[Any] = []
    bench.world.create_subscription(Header, "cancel", cancels.append, 10)
    client = ActionClient(bench.world, TTS, "tts_engine/tts")
    assert sink.trigger_configure() == sink.trigger_activate() == TransitionCallbackReturn.SUCCESS
    bench.start()
    bench.until(client.server_is_ready, "the action")
    bench.until(lambda: bench.node._ready and bench.node.count_subscribers("agent/audio"), "the graph")

    def send(text: str) -> Any:
        future = client.send_goal_async(TTS.Goal(input=text, locale="en_GB"))
        bench.until(future.done, f"an answer to {text!r}")
        return future.result()

    def end(handle: Any) -> tuple[int, str]:
        future = handle.get_result_async()
        bench.until(future.done, "a result")
        return future.result().status, future.result().result.error_msg

    refused = not send(" ").accepted
    begun = time.monotonic()
    heard = end(send("hello"))
    took = time.monotonic() - begun
    failed = end(send("bad"))
    endless = send("on")
    bench.until(lambda: bench.node._speaking, "speech")
    waiting = send("later")
    waiting_cancel = waiting.cancel_goal_async()
    taken_back = end(waiting)
    still = not cancels
    endless.cancel_goal_async()
    cut = end(endless)
    bench.until(lambda: not bench.node._speaking, "silence")
    assert waiting_cancel.done()
    again = end(send("you"))
    sink.end()
    sink.destroy_node()
    bench.finish(
        refused=refused,
        heard=heard,
        took=took,
        failed=failed,
        taken_back=taken_back,
        still=still,
        cut=cut,
        cancels=len(cancels),
        again=again,
        names={"succeeded": GoalStatus.STATUS_SUCCEEDED, "canceled": GoalStatus.STATUS_CANCELED}
        | {"aborted": GoalStatus.STATUS_ABORTED},
    )


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    globals()[name](*rest)
