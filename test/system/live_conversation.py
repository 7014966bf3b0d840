"""A live conversation over virtual sound devices: latency, lips against sound, drift; exits 1 if a figure is bad.

    python test/system/live_conversation.py [--mode rolling [--late]] [--seconds 1800] [--model MODEL] [--unplug]
    [--interrupt]

A sound server with a virtual microphone and loudspeaker stands for the sound card; everything else is real: `timar up`
with its nodes, DDS, the simulated head. This program is the robot's text-to-speech and the observer.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from output import Output
from scipy.signal import correlate
from scipy.stats import theilslopes

sys.path.insert(0, str(Path(__file__).parent.parent))
from support.sound_server import SoundServer, reason, sound_server

from timar_ros.motion import MODEL_RATE
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.stream_info import step_seconds

RATE = MODEL_RATE
CHUNK = 320
LEAD = {"reactive": 0.0, "anticipatory": 1.5, "rolling": 0.5}
"""How long before its time the agent's speech is published [s]: to anticipate, the robot must know what it will say."""
SETTLED, SAMPLED = 120.0, 60.0
"""When memory is looked at for the first time, and how often from then on [s]."""
MOST_GROWTH = 10.0
"""By how much a node may grow in all [MB]."""
SILENT_SECONDS = 4.0
"""For how long the agent is silent after an interruption."""
ANSWER_BARS = 250.0, 350.0
"""Rolling: from the end of the partner's phrase to the first frame that knows of it, as shown; p50 and p95 [ms]."""
MOST_CPU = 60.0
"""Rolling: what the whole graph may take of one core [%]."""
STILL = 0.01
"""As close to neutral as counts as there [rad]."""


class Watch:
    """Says the agent's part and notes when things arrive."""

    def __init__(self, agent: np.ndarray, lead: float) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from sensor_msgs.msg import JointState
        from std_srvs.srv import Trigger
        from trajectory_msgs.msg import JointTrajectory

        from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn, VoiceTiming
        from timar_ros.ros import messages, qos

        rclpy.init()
        self.messages = messages
        self.node = Node("text_to_speech")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.turns: dict[int, tuple[int, int]] = {}
        self.planned: dict[int, tuple[int, int]] = {}
        self.motion: dict[int, tuple[int, int, np.ndarray]] = {}
        self.commands: list[int] = []
        self.joints: list[tuple[int, tuple[float, ...]]] = []
        self.names: list[str] = []
        self.delay = 0.0
        self.step_ns = 10**9
        self.user_speech: list[tuple[int, np.ndarray]] = []
        self.lost: dict[str, dict[int, int]] = {"user": {}, "agent": {}}
        self._agent, self._sent, self._lead = agent, 0, lead
        self._begin = 0
        self.node.create_subscription(Turn, "turns", self._on_turn, qos.turns())
        self.node.create_subscription(FlameMotion, "agent/motion", self._on_motion, qos.motion())
        self.node.create_subscription(JointTrajectory, "joint_trajectory", self._on_command, qos.commands())
        self.node.create_subscription(JointState, "joint_states", self._on_joints, qos.commands())
        self.node.create_subscription(StreamInfo, "stream_info", self._on_info, qos.latched())
        self.node.create_subscription(VoiceTiming, "agent/voice_timing", self._on_timing, qos.commands())
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())
        self.complaints: Counter[str] = Counter()
        self._audio = self.node.create_publisher(AudioChunk, "agent/audio", qos.audio())
        self._cancel = self.node.create_client(Trigger, "timar_inference/cancel")
        self.interrupted_ns = 0

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.level != status.OK:
                self.complaints[f"{status.name}: {re.sub(r'[0-9.]+', '#', status.message)}"] += 1

    def _on_info(self, message: Any) -> None:
        self.delay = float(message.playback_delay)
        self.step_ns = round(step_seconds(message) * 1e9)

    def _on_timing(self, message: Any) -> None:
        self.delay = float(message.delay)

    def _on_turn(self, message: Any) -> None:
        start = self.messages.to_ns(message.header.stamp)
        if message.phase == 1:
            self.planned[message.number] = (start, time.time_ns())
        if message.phase == 0:
            self.turns[message.number] = (start, time.time_ns())
            self.user_speech.append((start, np.array(message.user_speech, np.float32)))
            for role, lost in (("user", message.lost_user_samples), ("agent", message.lost_agent_samples)):
                if lost:
                    self.lost[role][message.number] = lost

    def _on_motion(self, message: Any) -> None:
        got = self.messages.motion(message)
        self.motion[got.turn] = (got.stamp_ns, time.time_ns(), got.frames)

    def _on_command(self, _message: Any) -> None:
        self.commands.append(time.time_ns())

    def _on_joints(self, message: Any) -> None:
        self.joints.append((self.messages.to_ns(message.header.stamp), tuple(message.position)))
        self.names = list(message.name)

    def joint(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Times [ns] and positions of a joint."""
        index = self.names.index(name)
        return np.array([t for t, _ in self.joints]), np.array([p[index] for _, p in self.joints])

    def interrupt(self) -> None:
        """Somebody interrupts the agent, which says nothing for a while then."""
        self.interrupted_ns = time.time_ns()
        self._cancel.call_async(self._cancel.srv_type.Request())
        skipped = round((SILENT_SECONDS + self._lead) * RATE / CHUNK)
        self._sent += skipped * CHUNK

    def spin(self, speaking: bool) -> None:
        """Serve callbacks for a moment and say what is due."""
        self.executor.spin_once(timeout_sec=0.005)
        if not speaking:
            return
        if not self._begin:
            self._begin = time.time_ns() + 500_000_000
        while True:
            stamp = self._begin + round(self._sent * 1e9 / RATE)
            if stamp + round(CHUNK * 1e9 / RATE) - round(self._lead * 1e9) > time.time_ns():
                return
            at = self._sent % (len(self._agent) - CHUNK)
            samples = self._agent[at : at + CHUNK]
            self._audio.publish(self.messages.audio_message(stamp, self._sent, RATE, samples))
            self._sent += CHUNK

    def said(self) -> tuple[int, np.ndarray]:
        """Stamp of the first sample, and all that was said."""
        count = self._sent // CHUNK
        period = len(self._agent) - CHUNK
        pieces = [self._agent[(i * CHUNK) % period : (i * CHUNK) % period + CHUNK] for i in range(count)]
        return self._begin, np.concatenate(pieces)


def offset_of_sound(watch: Watch, blocks: list[Any], second: float) -> float:
    """How late the loudspeaker was around ``second`` of the agent's speech, against stamp and delay [s]."""
    begin, said = watch.said()
    first = round(second * RATE)
    wanted = said[first : first + 4 * RATE]
    due = begin + first / RATE * 1e9 + watch.delay * 1e9
    chosen = [b for b in blocks if abs(b.stamp_ns - due - 2e9) < 3.2e9]
    if not chosen or np.abs(wanted).max() < 0.01:
        return float("nan")
    heard = np.concatenate([b.samples[:, 0] for b in chosen])
    found = int(np.argmax(np.abs(correlate(heard, wanted, mode="valid", method="fft"))))
    return (chosen[0].stamp_ns + found / chosen[0].rate * 1e9 - due) * 1e-9


def offset_of_jaw(watch: Watch) -> tuple[float, float]:
    """How late the simulated jaw follows the motion's stamps [s], and the correlation at that lag."""
    step = 0.005
    motion = sorted(watch.motion.values(), key=lambda m: m[0])
    start, end = motion[2][0], motion[-2][0]
    axis = np.arange(start, end, step * 1e9)
    stamps = np.concatenate([m[0] + np.arange(len(m[2])) * 40e6 for m in motion])
    wanted = np.interp(axis, stamps, np.concatenate([m[2][:, 50] for m in motion]))
    done = np.interp(axis, *watch.joint("jaw"))
    wanted, done = (np.gradient(x) for x in (wanted, done))
    lags = np.arange(-40, 61)
    scores = [np.corrcoef(wanted[100:-100], np.roll(done, -lag)[100:-100])[0, 1] for lag in lags]
    best = int(np.argmax(scores))
    return float(lags[best] * step), float(scores[best])


def after_interruption(watch: Watch, blocks: list[Any]) -> dict[str, float]:
    """When sound and head were still after the agent was interrupted, and when the head moved again [s]."""
    at = watch.interrupted_ns
    span = (at - 2_000_000_000, at + round(SILENT_SECONDS * 1e9))
    levels = [(b.stamp_ns, float(np.sqrt(np.mean(b.samples**2)))) for b in blocks if span[0] < b.stamp_ns < span[1]]
    loud = [stamp for stamp, level in levels if level > 0.003]
    found = {"sound": (max(loud, default=at) - at) * 1e-9}
    moving_again = []
    for name in watch.names:
        times, position = watch.joint(name)
        neutral = position[0]
        later = times > at
        away = np.abs(position - neutral) > STILL
        resumed = times[later & (times > at + 1_000_000_000) & away]
        back = times[later & (times < at + 1_000_000_000) & away]
        found[name] = (back[-1] - at) * 1e-9 if len(back) else 0.0
        moving_again += [(resumed[0] - at) * 1e-9] if len(resumed) else []
    return found | {"moving again": min(moving_again, default=float("nan"))}


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=tuple(LEAD), default="reactive")
    parser.add_argument("--seconds", type=float, default=45.0, help="how long the conversation is watched")
    parser.add_argument("--model", default="", help="model; empty: the one that ships")
    parser.add_argument("--unplug", action="store_true", help="unplug the microphone for two seconds in the middle")
    parser.add_argument("--interrupt", action="store_true", help="interrupt the agent in the middle (`cancel`)")
    parser.add_argument("--late", action="store_true", help="rolling: the agent's speech does not come ahead of time")
    args = parser.parse_args()
    if why := reason():
        print(f"skipped: {why}")
        return 0
    folder = Path(tempfile.mkdtemp())
    from timar_ros.graph.domain import free_domain

    with sound_server(folder) as server, free_domain() as domain:
        os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        return converse(args, server, folder)


def converse(args: argparse.Namespace, server: SoundServer, folder: Path) -> int:
    """One conversation."""
    from timar_ros.audio.input_device import Microphone
    from timar_ros.data.audio_files import load_conversation, write_audio

    user, agent, _ = load_conversation(Path(__file__).parent.parent.parent / "samples" / "conversation.flac")
    repeats = int(args.seconds // (len(user) / RATE)) + 2
    write_audio(folder / "user.wav", np.tile(user, repeats), RATE)
    command = [
        sys.executable, "-m", "timar_ros.cli.main", "up", "--source", "microphone", "--microphone", "virtual_mic",
        "--speaker", "virtual_speaker", "--sim", "builtin", "--mode", args.mode, "--logs", str(folder / "logs"),
        "--model", args.model,
    ]  # fmt: skip
    watch = Watch(agent, 0.0 if args.late else LEAD[args.mode])
    graph = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = Output(graph)
    player = None
    memory: list[tuple[float, dict[str, float]]] = []
    blocks: list[Any] = []
    ear = Microphone("virtual_ear", rate=RATE, stall_seconds=5.0, report=print)
    try:
        output.wait(lambda: watch.spin(speaking=False))
        player = server.play(folder / "user.wav", "mic")
        begun, busy = time.monotonic(), used(graph.pid)
        unplugged = 0
        while (passed := time.monotonic() - begun) < args.seconds:
            watch.spin(speaking=True)
            while (block := ear.read(timeout=0.0)) is not None:
                blocks.append(block)
            if passed >= (memory[-1][0] + SAMPLED if memory else SETTLED):
                memory.append((passed, resident(graph.pid)))
            if args.interrupt and not watch.interrupted_ns and passed > args.seconds / 2:
                watch.interrupt()
            if args.unplug and not unplugged and passed > args.seconds / 2:
                server.unplug("mic")
                unplugged = 1
            elif unplugged == 1 and passed > args.seconds / 2 + 2.0:
                server.plug("mic")
                player = server.play(folder / "user.wav", "mic")
                unplugged = 2
        load = {name: 100 * (now - busy.get(name, 0.0)) / passed for name, now in used(graph.pid).items()}
    finally:
        ear.close()
        if player is not None and player.poll() is None:
            player.terminate()
            player.wait()
        if graph.poll() is None:
            graph.send_signal(signal.SIGINT)
        graph.wait(timeout=60)
    return judge(args, watch, blocks, output.lines, memory, load)


def resident(pid: int) -> dict[str, float]:
    """Memory of a command's nodes by name [MB]."""
    found = {}
    for child in psutil.Process(pid).children():
        names = [part.rpartition(".")[2] for part in child.cmdline() if part.startswith("timar_ros.nodes.")]
        if names:
            found[names[0]] = child.memory_info().rss / 1e6
    return found


def used(pid: int) -> dict[str, float]:
    """Processor time that a command and its nodes have used, by name [s]."""
    parent = psutil.Process(pid)
    found = {}
    for process in (parent, *parent.children()):
        names = [part.rpartition(".")[2] for part in process.cmdline() if part.startswith("timar_ros.nodes.")]
        times = process.cpu_times()
        found[names[0] if names else "up"] = times.user + times.system
    return found


def answers(watch: Watch, margin_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """From each end of the partner's phrases, as the microphone stamped it, to what knows of it [ms].

    :returns: to the first joint command after that motion has come, and to the time at which its first frame is shown.
    """
    from timar_ros.evaluation.metrics.behaviour import phrase_ends
    from timar_ros.evaluation.metrics.conversation_signals import voice_activity

    heard = sorted(watch.user_speech, key=lambda piece: piece[0])
    samples = np.concatenate([piece for _, piece in heard])
    stamps = np.concatenate([start + np.arange(len(piece) // 640) * 40_000_000 for start, piece in heard])
    commands = np.array(watch.commands)
    commanded, shown = [], []
    ends = {start + watch.step_ns: number for number, (start, _) in watch.turns.items()}
    over = np.array(sorted(ends))
    for frame in phrase_ends(voice_activity(samples)):
        end = stamps[frame] if frame < len(stamps) else None
        if end is None or end > over[-1]:
            continue
        hop_end = int(over[np.searchsorted(over, end)])
        motion = watch.motion.get(ends[hop_end])
        later = commands[commands >= motion[1]] if motion is not None else []
        if motion is not None and len(later):
            commanded.append((later[0] - end) * 1e-6)
            shown.append((max(hop_end + margin_ns, later[0]) - end) * 1e-6)
    return np.array(commanded), np.array(shown)


def judge(
    args: argparse.Namespace,
    watch: Watch,
    blocks: list[Any],
    lines: list[str],
    memory: list[tuple[float, dict[str, float]]],
    load: dict[str, float],
) -> int:
    """Print the figures; 1 if one is not as promised."""
    # from the last sample of a turn at the microphone (its stamp) to the motion and to the first command after it
    segmented = np.array([arrived - start - watch.step_ns for start, arrived in watch.turns.values()]) * 1e-6
    commands = np.array(watch.commands)
    waits = []
    for number, (_, arrived, _) in watch.motion.items():
        reference = (
            watch.turns[number][0] + (0 if args.mode == "anticipatory" else watch.step_ns)
            if number in watch.turns
            else None
        )
        later = commands[commands >= arrived]
        if reference is not None and len(later) and number > 2:
            waits.append((later[0] - reference) * 1e-6)
    seconds = np.arange(6.0, args.seconds - 8.0, 4.0)
    if watch.interrupted_ns:
        spoken = (watch.interrupted_ns - watch.said()[0]) * 1e-9
        seconds = seconds[(seconds < spoken - 5.0) | (seconds > spoken + SILENT_SECONDS + 2.0)]
    sound = np.array([offset_of_sound(watch, blocks, s) for s in seconds])
    sound, times = sound[np.isfinite(sound)], seconds[np.isfinite(sound)]
    jaw, likeness = offset_of_jaw(watch)
    offset = (jaw - np.median(sound)) * 1e3
    # A slope that single readings do not move: under load the sound server reports a wrong delay for seconds.
    drift = float(theilslopes(sound, times)[0]) * (times[-1] - times[0]) * 1e3 if len(sound) >= 6 else 0.0
    missing = sorted(set(range(min(watch.motion), max(watch.motion) + 1)) - set(watch.motion))
    waits_ms = np.array(waits)
    if watch.planned:
        ahead = np.array([(arrived - start) * 1e-6 for start, arrived in watch.planned.values()])
        ready = np.array([(m[1] - m[0]) * 1e-6 for m in watch.motion.values()])
        print(
            f"turn planned {np.percentile(ahead, 50):+.0f} ms (p50), {np.percentile(ahead, 95):+.0f} ms (p95) from its "
            f"start; its motion came {np.percentile(ready, 50):+.0f} ms, {np.percentile(ready, 95):+.0f} ms from it"
        )
    margin = PipelineOptions.hop_margin
    bar = {"reactive": 150.0, "anticipatory": 0.0, "rolling": margin * 1e3}[args.mode]
    what = "after the turn's first sample is due" if args.mode == "anticipatory" else "after the turn's last sample"
    print(f"mode {args.mode}, playback_delay {watch.delay:.2f} s, {len(watch.motion)} turns with motion")
    print(
        f"turn closed {np.percentile(segmented, 50):.0f} ms (p50), {np.percentile(segmented, 95):.0f} ms (p95) after it"
    )
    checks = {
        f"first joint command p50 {np.percentile(waits_ms, 50):.0f} ms, p95 {np.percentile(waits_ms, 95):.0f} ms {what}"
        f" (bar {bar:.0f})": np.percentile(waits_ms, 95) <= bar,
        f"sound leaves the loudspeaker {np.median(sound) * 1e3:+.1f} ms off its time, drift {drift:+.1f} ms": (
            abs(drift) < 5
        ),
        f"jaw follows its stamps by {jaw * 1e3:+.0f} ms (r {likeness:.2f}): {offset:+.0f} ms against the sound"
        " (bar 40)": abs(offset) <= 40.0,
        f"turns without motion: {len(missing)} {missing[:12] or ''}": not missing or args.unplug,
        "samples lost (of 16000 a turn): " + ", ".join(
            f"{role} {sum(turns.values())}" + (f" in turns {list(turns)[:8]}" if turns else "")
            for role, turns in watch.lost.items()
        ): not any(watch.lost.values()) or args.unplug,
    }  # fmt: skip
    print("processor, of one core: " + ", ".join(f"{name} {share:.1f} %" for name, share in load.items()))
    if args.mode == "rolling":
        commanded, shown = answers(watch, round(margin * 1e9))
        p50, p95 = np.percentile(shown, [50, 95])
        print(
            f"{len(commanded)} phrase ends of the partner: first joint command that knows of it p50 "
            f"{np.percentile(commanded, 50):.0f} ms, p95 {np.percentile(commanded, 95):.0f} ms after it"
        )
        bars = " and ".join(f"{each:.0f}" for each in ANSWER_BARS)
        checks[f"… and its motion is shown p50 {p50:.0f} ms, p95 {p95:.0f} ms after it (bars {bars})"] = (
            p50 <= ANSWER_BARS[0] and p95 <= ANSWER_BARS[1]
        )
        checks[f"whole graph {sum(load.values()):.0f} % of one core (bar {MOST_CPU:.0f})"] = (
            sum(load.values()) <= MOST_CPU
        )
        wanted = margin + PipelineOptions.hop if args.late else 0.0
        checks[f"the agent is heard {watch.delay:.2f} s after its stamps (meant: {wanted:.2f})"] = (
            abs(watch.delay - wanted) < 1e-6
        )
    if len(memory) > 1:
        (early, before), (late, after) = memory[0], memory[-1]
        for name in before:
            grown = after.get(name, float("nan")) - before[name]
            text = f"{name}: {before[name]:.0f} MB after {early / 60:.0f} min, {grown:+.1f} MB by {late / 60:.0f} min"
            checks[text] = grown < MOST_GROWTH
        half = len(waits_ms) // 2
        print(
            f"first joint command p95 {np.percentile(waits_ms[:half], 95):.0f} ms in the first half, "
            f"{np.percentile(waits_ms[half:], 95):.0f} ms in the second"
        )
    if args.interrupt:
        found = after_interruption(watch, blocks)
        print(f"head moves again {found.pop('moving again'):.2f} s after the interruption")
        figures = ", ".join(f"{what} {seconds * 1e3:.0f} ms" for what, seconds in found.items())
        checks[f"still after the interruption: {figures}"] = max(found.values()) < 0.4
    if args.unplug:
        reports = [line for line in lines if "is gone" in line or "is back" in line]
        checks[f"the microphone came back ({len(reports)} reports)"] = any("is back" in line for line in reports)
    for complaint, seconds in watch.complaints.most_common(6):
        print(f"diagnostics, {seconds} times: {complaint}")
    for text, good in checks.items():
        print(f"{'ok  ' if good else 'BAD '} {text}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
