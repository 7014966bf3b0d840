"""Node `live_page`: serves a page on this machine that shows and controls the running conversation.

The page shows the robot (URDF and joint states), both faces (FLAME motion), levels, turns, latency and diagnostics. The
browser's microphone can be the partner's voice or the robot's.
"""

from __future__ import annotations

import math
import queue
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger

from timar_ros.errors import UserError, require
from timar_ros.evaluation.report import report_robot
from timar_ros.evaluation.report.report_block import Block
from timar_ros.evaluation.report.report_page import live_page
from timar_ros.graph.lifecycle import LifecycleClient
from timar_ros.live.page_commands import Press, Style, read_command, read_sound
from timar_ros.live.page_figures import Latencies, Levels, face_pose, level, robot_pose
from timar_ros.live.page_microphone import PageMicrophone
from timar_ros.live.shown_motion import ShownMotion
from timar_ros.motion import MOTION_RATE, MOTION_SIZE
from timar_ros.msg import AudioChunk, FlameMotion, RetargetInfo, StreamInfo, Turn
from timar_ros.retarget.profile import load_profile
from timar_ros.ros import messages, qos
from timar_ros.ros.base import OK, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.node_process import run
from timar_ros.simulation.robot_shape import find_urdf, read_shape
from timar_ros.srv import SetStyle

RATE = 30.0
"""Rate of the states sent to the page [Hz]."""

CLOSING = 0.2
"""How long an interrupted face takes to come to rest [s]."""

MOST_WAITING = 500
"""Most page commands that wait for the node; further ones are dropped."""

VOICES = {"user": 0, "agent": 1}
"""Each speaker's number in the header of a piece of sound."""

PAUSE = 1.5
"""Pause between the end of a recording and its restart [s]."""


class LivePage(ManagedNode):
    """Serves the page while it is active."""

    PARAMETERS = (
        Parameter("port", 0, "port of the page on 127.0.0.1; 0: a free one", 0, 65535),
        Parameter("robot", "timar_head", "robot profile: a name (`timar robots list`) or a YAML file"),
        Parameter("urdf", "", "the robot's URDF; empty: the package's own, else the one on robot_description"),
        Parameter("recordings", "out/live", "folder for the bags of the page's record button"),
        Parameter("repeat", False, "restart the recording of audio_source at its end"),
    )

    _server: Any = None
    _recording: subprocess.Popen[bytes] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("live_page", **options)

    def configure(self) -> None:
        """Read the robot; create clients, publishers and subscriptions."""
        require("websockets", "pip install 'timar_ros[live]'", "the live page")
        self._profile = load_profile(self.value("robot"))
        self._body: dict[str, Any] | None = None
        self._description = ""
        self._load_shape()
        self._info: StreamInfo | None = None
        self._gains: RetargetInfo | None = None
        self.subscribe(StreamInfo, "stream_info", self._take_info, qos.latched(), inactive=True)
        self.subscribe(RetargetInfo, "retarget_info", self._take_gains, qos.latched(), inactive=True)
        self.subscribe(String, "robot_description", self._take_description, qos.latched(), inactive=True)
        self._voices = {role: self.publish_on(AudioChunk, f"{role}/audio", qos.audio()) for role in VOICES}
        self._service_clients = {
            "reset": self.create_client(Trigger, "timar_inference/reset"),
            "cancel": self.create_client(Trigger, "timar_inference/cancel"),
            "style": self.create_client(SetStyle, "timar_inference/set_style"),
            "gain": self.create_client(SetStyle, "retarget/set_style"),
        }
        for client in self._service_clients.values():
            self._scope[client] = partial(self.destroy_client, client)
        self._source = LifecycleClient(self, "audio_source")

    def activate(self) -> None:
        """Start the server and the subscriptions that feed it."""
        from timar_ros.live.page_server import PageServer

        self._heads = {"agent": ShownMotion(), "user": ShownMotion()}
        self._levels = {role: Levels() for role in VOICES}
        self._latencies = Latencies()
        self._turn = -1
        self._joints: dict[str, float] = {}
        self._joints_time = -math.inf
        self._nodes: dict[str, dict[str, Any]] = {}
        self._cancelled_until_ns = 0
        self._commands: queue.Queue[tuple[int, Press | Style | NDArray[np.float32]]] = queue.Queue(MOST_WAITING)
        self._microphone: tuple[int, str, PageMicrophone] | None = None
        self._streams = time.time_ns() // 1_000_000_000 % (1 << 31)
        self._playing: bool | None = None
        self._steps: list[str] = []
        self._ended_at: float | None = None
        self._started_at = time.monotonic()
        self._server = PageServer(live_page(), self._receive, self._browser_left, port=int(self.value("port")))
        self._send_body()
        self._send_slow_state()
        self.subscribe(AudioChunk, "user/audio", lambda m: self._take_audio("user", m), qos.audio(), optional=True)
        self.subscribe(
            AudioChunk, "agent/audio_out", lambda m: self._take_audio("agent", m), qos.audio(), optional=True
        )
        self.subscribe(FlameMotion, "agent/motion", self._take_motion, qos.motion(), optional=True)
        self.subscribe(FlameMotion, "user/motion", self._take_partner, qos.motion(), optional=True)
        self.subscribe(Turn, "turns", self._take_turn, qos.turns(), optional=True)
        self.subscribe(JointState, "joint_states", self._take_joints, qos.commands(), optional=True)
        self.subscribe(Header, "cancel", self._cancel, qos.commands(), optional=True)
        self.subscribe(DiagnosticArray, "/diagnostics", self._take_diagnostics, qos.diagnostics(), optional=True)
        self.every(1.0 / RATE, self._show, steady=True)
        self.every(1.0, self._send_slow_state, steady=True)
        self.get_logger().info(f"page: {self._server.address}")

    def deactivate(self) -> None:
        """Stop the server and a recording."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._record(on=False)

    def diagnose(self) -> Diagnosis:
        """The number of open pages and of refused messages."""
        rows = {"pages": str(self._server.pages), "refused": str(self._server.refused)}
        return OK, "serving", rows

    # The robot's shape ------------------------------------------------------------------------------------------------

    def _load_shape(self) -> None:
        """Read the shape from the parameter's URDF, or from the package's own."""
        path = Path(self.value("urdf")) if self.value("urdf") else find_urdf(self._profile)
        if path is None:
            return
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the URDF {path}: {error}") from error
        self._set_shape(text, path.parent)

    def _set_shape(self, text: str, folder: Path | None) -> None:
        block = Block()
        shape = read_shape(text, self._profile, folder)
        for missing in shape.missing:
            self.get_logger().warning(f"not drawn: {missing}")
        self._description = text
        self._body = {"shape": report_robot.shape(block, shape), "block": block.base64()}

    def _take_description(self, message: String) -> None:
        # A description on the topic does not replace the user's URDF or the package's own.
        if self._body is None and message.data != self._description:
            self._set_shape(message.data, None)
            if self._server is not None:
                self._send_body()

    def _send_body(self) -> None:
        names = {"robot": self._profile.title, "jaw": self._profile.jaw.joint is not None}
        self._server.tell("body", {**names, **(self._body or {})}, keep=True)

    # Messages of the graph --------------------------------------------------------------------------------------------

    def _take_info(self, message: StreamInfo) -> None:
        self._info = message

    def _take_gains(self, message: RetargetInfo) -> None:
        self._gains = message

    def _take_motion(self, message: FlameMotion) -> None:
        chunk = messages.motion(message)
        self._latencies.answer(chunk.turn, time.monotonic())
        self._turn = chunk.turn
        kept = chunk.since(self._cancelled_until_ns)
        if len(kept.frames):
            self._heads["agent"].push(kept)

    def _take_partner(self, message: FlameMotion) -> None:
        self._heads["user"].push(messages.motion(message))

    def _take_turn(self, message: Turn) -> None:
        planned = self._info is not None and self._info.mode == "anticipatory"
        if (message.phase == Turn.PLANNED) == planned:
            self._latencies.ask(message.number, time.monotonic())

    def _take_joints(self, message: JointState) -> None:
        wanted = set(self._profile.names)
        found = {
            name: position
            for name, position in zip(message.name, message.position, strict=False)
            if name in wanted and math.isfinite(position)
        }
        if found:
            self._joints.update(found)
            self._joints_time = time.monotonic()

    def _take_audio(self, role: str, message: AudioChunk) -> None:
        chunk = messages.audio(message)
        samples = chunk.samples if chunk.samples.ndim == 1 else chunk.samples.mean(axis=1)
        self._levels[role].push(chunk.stamp_ns, level(samples))
        if role == "agent" and chunk.end:
            self._ended_at = time.monotonic()
        from_browser = self._microphone is not None and self._microphone[1] == role
        if not from_browser and len(samples):
            sound = (np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
            self._server.play(struct.pack("<II", VOICES[role], chunk.rate) + sound)

    def _cancel(self, message: Header) -> None:
        """The agent was interrupted: bring its face to rest."""
        self._cancelled_until_ns = messages.shown_ns(message.stamp, self._info)
        self._levels["agent"].clear()
        now = self.now_ns()
        head = self._heads["agent"]
        head.cut(now)
        rest = np.zeros((1, MOTION_SIZE), np.float32)
        head.push(messages.Motion(now + round(CLOSING * 1e9), MOTION_RATE, 0, rest, None))

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.removesuffix(": node").rpartition("/")[2]
            grade = status.level[0] if isinstance(status.level, bytes) else int(status.level)
            self._nodes[name] = {"name": name, "level": grade, "words": status.message, "at": time.monotonic()}

    # States for the page ----------------------------------------------------------------------------------------------

    def _show(self) -> None:
        self._run_commands()
        self._follow_source()
        now = self.now_ns()
        if not self._server.pages:
            return
        faces = {f"{role}": face_pose(head, now) for role, head in self._heads.items()}
        known = time.monotonic() - self._joints_time < 1.0
        robot = {
            "pose": robot_pose(self._profile, self._joints),
            "joints": {name: round(position, 4) for name, position in self._joints.items()},
            "known": known,
            "speaking": faces["agent"]["speaking"],
        }
        levels = [round(self._levels[role].at(now), 3) for role in VOICES]
        state = {"time": round(time.monotonic() - self._started_at, 3), "robot": robot, **faces, "levels": levels}
        self._server.tell("now", {**state, "turn": self._turn})

    def _send_slow_state(self) -> None:
        """Send the slow state, once a second."""
        self._watch_source()
        if self._recording is not None and (code := self._recording.poll()) is not None:
            self.get_logger().warning(f"the recording ended by itself (exit code {code})")
            self._recording = None
        info, gains, now = self._info, self._gains, time.monotonic()
        stream: dict[str, Any] = {}
        style: dict[str, float] = {}
        if info is not None:
            stream = {"mode": info.mode, "model": info.model, "trained": info.trained, "delay": info.playback_delay}
            stream["step"] = info.hop if info.mode == "rolling" else info.turn_duration
            style = {"temperature": info.temperature, "guidance": info.guidance}
        if gains is not None:
            style |= {"speaking_gain": gains.speaking_gain, "listening_gain": gains.listening_gain}
        state = {
            "stream": stream,
            "style": style,
            "latency": [self._latencies.percentile(50), self._latencies.percentile(95)],
            "answered": self._latencies.answered,
            "recording": self._recording is not None,
            "playing": self._playing,
            "microphone": "off" if self._microphone is None else self._microphone[1],
            "nodes": [
                {"name": node["name"], "level": node["level"] if now - node["at"] < 5.0 else 3, "words": node["words"]}
                for _, node in sorted(self._nodes.items())
            ],
        }
        self._server.tell("words", state, keep=True)

    # Commands of pages ------------------------------------------------------------------------------------------------

    def _receive(self, identity: int, message: str | bytes) -> None:
        """In the server's thread: check a command and queue it for the node's thread."""
        command = read_sound(message) if isinstance(message, bytes) else read_command(message)
        try:
            self._commands.put_nowait((identity, command))
        except queue.Full:
            raise UserError("too many commands at once") from None

    def _browser_left(self, identity: int) -> None:
        """In the server's thread: a browser has disconnected; end its microphone."""
        microphone_off = Press("microphone", on=False)
        try:
            self._commands.put_nowait((identity, microphone_off))
        except queue.Full:
            self.statistics.count("commands dropped")

    def _run_commands(self) -> None:
        while True:
            try:
                identity, command = self._commands.get_nowait()
            except queue.Empty:
                return
            if isinstance(command, Press):
                self._press(identity, command)
            elif isinstance(command, Style):
                self._restyle(identity, command)
            else:
                self._publish_microphone(identity, command)

    def _press(self, identity: int, press: Press) -> None:
        if press.button in ("reset", "cancel"):
            self._call(identity, press.button, Trigger.Request())
        elif press.button == "hear":
            self._server.hear(identity, on=press.on)
        elif press.button == "record":
            self._record(on=press.on)
        elif press.button == "play":
            self._switch("activate" if press.on else "deactivate")
        else:
            self._switch_microphone(identity, press)
        self._send_slow_state()

    def _restyle(self, identity: int, style: Style) -> None:
        request = SetStyle.Request()
        setattr(request, style.name, [style.value])
        self._call(identity, "gain" if style.name.endswith("_gain") else "style", request)

    def _call(self, identity: int, service: str, request: Any) -> None:
        client = self._service_clients[service]
        if not client.service_is_ready():
            self._server.answer(identity, f"no node offers the service {client.srv_name}", good=False)
            return

        def answered(future: Any) -> None:
            if self._server is not None and future.exception() is None:
                result = future.result()
                self._server.answer(identity, result.message, good=bool(result.success))

        client.call_async(request).add_done_callback(answered)

    def _switch_microphone(self, identity: int, press: Press) -> None:
        """Start or end a browser's microphone."""
        if self._microphone is not None and (press.on or self._microphone[0] == identity):
            _, role, microphone = self._microphone
            self._microphone = None
            end = messages.audio_message(
                self.now_ns(), microphone.index, microphone.rate, [], stream_id=microphone.stream_id, end=True
            )
            self._voices[role].publish(end)
        if press.on:
            # The recording publishes on the same topics.
            if self._playing:
                self._switch("deactivate")
            self._streams += 1000
            self._microphone = (identity, press.role, PageMicrophone(press.rate, self._streams))

    def _publish_microphone(self, identity: int, samples: NDArray[np.float32]) -> None:
        if self._microphone is None or self._microphone[0] != identity:
            self.statistics.count("sound without a microphone command")
            return
        _, role, microphone = self._microphone
        piece = microphone.take(samples, self.now_ns())
        self._voices[role].publish(
            messages.audio_message(
                piece.stamp_ns, piece.index, microphone.rate, piece.samples, stream_id=piece.stream_id
            )
        )
        self.statistics.tick(f"{role}/audio from the page")

    def _record(self, *, on: bool) -> None:
        if on and self._recording is None:
            folder = Path(self.value("recordings"))
            path = folder / time.strftime("bag-%Y%m%d-%H%M%S")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self.get_logger().error(f"cannot record into {folder}: {error.strerror}")
                return
            command = [sys.executable, "-m", "timar_ros.cli.main", "record", str(path)]
            command += ["--namespace", self.get_namespace().strip("/")]
            if self.get_parameter("use_sim_time").value:
                command.append("--use-sim-time")
            self._recording = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
            self.get_logger().info(f"recording into {path}")
        elif not on and self._recording is not None:
            self._recording.send_signal(signal.SIGINT)
            try:
                self._recording.wait(timeout=10.0)
            except subprocess.TimeoutExpired:
                self._recording.kill()
            self._recording = None

    # The recording that audio_source plays ----------------------------------------------------------------------------

    def _switch(self, *steps: str) -> None:
        """Request lifecycle transitions of audio_source, one after the other."""
        if self._playing is not None:
            self._steps = list(steps)
            self._source.begin(steps[0])

    def _follow_source(self) -> None:
        """Continue the requested transitions."""
        if not self._steps or (succeeded := self._source.poll()) is None:
            return
        step = self._steps.pop(0)
        self._ended_at = None
        if not succeeded:
            self._steps = []
            return
        self._playing = step == "activate"
        if self._steps:
            self._source.begin(self._steps[0])

    def _watch_source(self) -> None:
        """Check whether audio_source runs; restart its recording at the end."""
        if "audio_source" not in {name for name, _ in self.get_node_names_and_namespaces()}:
            self._playing, self._steps = None, []
        elif self._playing is None:
            self._playing = True
        over = self._ended_at is not None and time.monotonic() - self._ended_at > PAUSE
        if over and self._playing and not self._steps and self.value("repeat"):
            self._switch("deactivate", "activate")


def main() -> int:
    """Executable `live_page`."""
    return run(LivePage)


if __name__ == "__main__":
    raise SystemExit(main())
