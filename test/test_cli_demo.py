"""`timar demo` and `timar up` as a user runs them: real processes, real DDS, from start to end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import numpy as np
import psutil
import pytest
import soundfile

pytest.importorskip("rclpy")
pytest.importorskip("torch")

from support.layouts import foxglove, message_paths, split, value_at
from support.ros_bench import PATIENCE
from support.tiny_models import tiny_model

from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.bag_messages import frames_of
from timar_ros.data.motion_files import read_motion, write_motion
from timar_ros.graph.description import GraphOptions, describe
from timar_ros.model import save_timar
from timar_ros.node_parts.playback import load_recording

NODES = [spec.name for spec in describe(GraphOptions(source="recording", recording="x", sim="builtin", record="y"))]
SECONDS = 3.3


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A short recording of one's own, and a model small enough for it."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for name in ("user", "agent"):
        samples = rng.normal(0.0, 0.1, round(SECONDS * 16000)).astype(np.float32)
        soundfile.write(folder / f"{name}.wav", samples, 16000)
    write_motion(folder / "user.npz", rng.normal(size=(round(SECONDS * 25), 56)).astype(np.float32) * 0.05)
    # Not zero_head's silence: any mistake must show in the motion.
    save_timar(tiny_model(1), folder / "tiny", name="tiny")
    return folder


def arguments(own, out, *more):
    files = ["--user", own / "user.wav", "--agent", own / "agent.wav", "--user-motion", own / "user.npz"]
    return [str(part) for part in ("demo", *files, "--model", own / "tiny", "--out", out, *more)]


def run(*arguments):
    command = [sys.executable, "-m", "timar_ros.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)


def start(*arguments):
    command = [sys.executable, "-m", "timar_ros.cli.main", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def nodes_of(process):
    """The node processes of a running command, by name."""
    found = {}
    for child in psutil.Process(process.pid).children():
        names = [part.rpartition(".")[2] for part in child.cmdline() if part.startswith("timar_ros.nodes.")]
        if names:
            found[names[0]] = child
    return found


def wait_until_up(process, out):
    """Wait until all nodes run: the recorder is activated first, the source last. The nodes, by name."""
    deadline = time.monotonic() + PATIENCE
    while not ((out / "logs" / "audio_sink.log").exists() and (out / "bag").exists()):
        ended, late = process.poll() is not None, time.monotonic() > deadline
        if ended or late:
            process.kill()
            logs = "".join(f"\n{log.name}: {log.read_text()}" for log in sorted((out / "logs").glob("*.log")))
            said = "".join(process.communicate())
            pytest.fail(f"the demo {'ended' if ended else 'never came up'}: {said}{logs}")
        time.sleep(0.02)
    return nodes_of(process)


@pytest.fixture(scope="module")
def finished(own, tmp_path_factory):
    """One run to the end, looked at by several tests."""
    out = tmp_path_factory.mktemp("run") / "demo"
    environment = os.environ.pop("ROS_DOMAIN_ID", None)
    try:
        return out, run(*arguments(own, out, "--speed", 0, "--seed", 7))
    finally:
        if environment is not None:
            os.environ["ROS_DOMAIN_ID"] = environment


def test_it_ends_by_itself_and_says_how_it_went(finished):
    out, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("turns dropped", "latency p50", "latency p95", "latency max", "real-time factor", "violations"):
        assert what in done.stdout
    assert "UNTRAINED" in done.stdout
    assert str(out / "report.html").split("/")[-2] in done.stdout
    results = json.loads((out / "run.json").read_text())
    assert (results["turns"], results["dropped"], results["lost_samples"], results["limit_violations"]) == (4, 0, 0, 0)


def test_live_motion_equals_timar_generate_to_the_bit(finished, own, tmp_path):
    out, _ = finished
    made = run(
        "generate", "--user", own / "user.wav", "--agent", own / "agent.wav", "--user-motion", own / "user.npz",
        "--model", own / "tiny", "--seed", 7, "--out", tmp_path / "offline.npz",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    live, offline = read_motion(out / "motion.npz"), read_motion(tmp_path / "offline.npz")
    assert live.shape == (int(SECONDS * 25), 56)
    np.testing.assert_array_equal(live, offline)
    assert np.abs(live).max() > 0.01


def test_so_does_motion_made_ahead(own, tmp_path):
    """Planned before each turn from the agent's speech, with the user heard up to then."""
    how = ("--mode", "anticipatory", "--seed", 7)
    live = run(*arguments(own, tmp_path / "demo", "--speed", 0, "--no-report", *how))
    assert live.returncode == 0, live.stdout + live.stderr
    made = run(
        "generate", "--user", own / "user.wav", "--agent", own / "agent.wav", "--user-motion", own / "user.npz",
        "--model", own / "tiny", *how, "--out", tmp_path / "offline.npz",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    offline = read_motion(tmp_path / "offline.npz")
    np.testing.assert_array_equal(read_motion(tmp_path / "demo" / "motion.npz"), offline)
    assert np.abs(offline).max() > 0.01
    info = json.loads((tmp_path / "demo" / "run.json").read_text())
    assert (info["dropped"], info["lost_samples"]) == (0, 0)


ROLLING = ("--mode", "rolling", "--hop", 0.04, "--hop-margin", 0.2, "--look-ahead", 0.6, "--seed", 7)
"""All of rolling mode's options off their defaults."""


@pytest.fixture(scope="module")
def rolled(own, tmp_path_factory):
    """A run in rolling mode, with the agent's speech ahead of its time."""
    out = tmp_path_factory.mktemp("rolled") / "demo"
    return out, run(*arguments(own, out, "--speed", 0, "--no-report", *ROLLING))


def test_so_does_rolling_motion(rolled, own, tmp_path):
    """A hop has as many frames as its length says, and each frame lies where the speech lies that it goes with."""
    out, live = rolled
    assert live.returncode == 0, live.stdout + live.stderr
    files = ("--user", own / "user.wav", "--agent", own / "agent.wav", "--user-motion", own / "user.npz")
    made = {}
    for ahead in ("--speech-ahead", "--no-speech-ahead"):
        npz = tmp_path / f"{ahead}.npz"
        done = run("generate", *files, "--model", own / "tiny", *ROLLING, ahead, "--out", npz)
        assert done.returncode == 0, done.stderr
        made[ahead] = read_motion(npz)
    np.testing.assert_array_equal(read_motion(out / "motion.npz"), made["--speech-ahead"])
    assert np.abs(made["--speech-ahead"] - made["--no-speech-ahead"]).max() > 0.01
    results = json.loads((out / "run.json").read_text())
    # 3.3 s in hops of 0.04 s; the rest of 0.02 s is no frame.
    assert (results["mode"], results["turns"]) == ("rolling", 82)
    assert (results["dropped"], results["lost_samples"], results["limit_violations"]) == (0, 0, 0)


@pytest.mark.parametrize("source", ["turns", "audio"])
def test_a_bag_of_a_rolling_run_replays_to_the_same_bytes(rolled, own, tmp_path, source):
    out, live = rolled
    assert live.returncode == 0, live.stdout + live.stderr
    done = run("replay", out, "--out", tmp_path / "again", "--model", own / "tiny", "--input", source, "--quiet")
    assert done.returncode == 0, done.stderr
    motion = []
    for bag in (out / "bag", tmp_path / "again" / "bag"):
        with BagReader(bag) as reader:
            topic = reader.find("agent/motion")
            motion.append({m.turn: frames_of(m).tobytes() for _, _, m in reader.messages({topic})})
    live_motion, again = motion
    assert len(live_motion) == len(again) == 82
    assert [number for number in live_motion if live_motion[number] != again[number]] == [], done.stdout


def test_its_bag_holds_the_whole_conversation(finished, own):
    from timar_ros.bags.recording import load_recording as load_bag

    out, _ = finished
    bag = load_bag(out / "bag")
    assert len(bag.turns) == 4
    assert bag.dropped == 0
    recording = load_recording("", str(own / "user.wav"), str(own / "agent.wav"))
    for heard, played in ((bag.user_audio, recording.user), (bag.agent_audio, recording.agent)):
        np.testing.assert_allclose(heard[: len(played)], played, atol=1e-6)
    assert bag.joints is not None
    assert bag.joints.time[-1] > SECONDS - 0.5


def test_its_joints_follow_what_was_commanded(finished):
    """At speed 0 the clock runs ahead of the messages; the simulated head must not show it."""
    times = {"joint_commands": [], "joint_states": []}
    positions = {"joint_commands": [], "joint_states": []}
    with BagReader(finished[0] / "bag") as bag:
        for topic, _, message in bag.messages({"/joint_commands", "/joint_states"}):
            times[topic[1:]].append(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)
            positions[topic[1:]].append(dict(zip(message.name, message.position, strict=True)))
    stamps = np.array(times["joint_states"])
    assert (np.diff(stamps) == 10_000_000).all()
    moved = 0.0
    for joint in ("neck_yaw", "neck_pitch", "neck_roll", "jaw"):
        commanded, measured = (np.array([p[joint] for p in positions[name]]) for name in times)
        expected = np.interp(stamps, times["joint_commands"], commanded)
        error = measured - expected
        assert np.abs(error).max() < 0.1, joint
        # A head that is told too late leaps after its commands.
        assert np.abs(np.diff(measured)).max() <= 1.2 * np.abs(np.diff(commanded)).max(), joint
        moved = max(moved, np.ptp(commanded))
    assert moved > 0.5, "the commands are too small to tell"


def test_its_bag_holds_all_that_the_foxglove_layout_shows(finished, repository):
    layout = foxglove(repository)
    wanted = [(panel, *split(path), label) for panel, path, label in message_paths(layout)]
    seen = dict.fromkeys(range(len(wanted)), 0)
    with BagReader(finished[0] / "bag") as bag:
        for topic, _, message in bag.messages({topic for _, topic, _, _ in wanted}):
            for index, (panel, asked, steps, label) in enumerate(wanted):
                if topic == asked:
                    value_at(message, steps)
                    seen[index] += 1
                    if topic == "/joint_states":
                        assert message.name[int(steps[0][1])] == label, panel
            if topic == "/robot_description":
                links = {link.get("name") for link in ET.fromstring(message.data).findall("link")}
    assert min(seen.values()) > 0, [wanted[index] for index, count in seen.items() if not count]
    assert layout["configById"]["3D!head"]["followTf"] in links


def test_its_files_are_what_they_should_be(finished):
    out, _ = finished
    assert {path.name for path in out.iterdir()} == {
        "bag", "logs", "motion.npz", "joints.csv", "agent.wav", "run.json", "report.html",
    }  # fmt: skip
    with (out / "joints.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["time", "neck_yaw/position", "neck_yaw/velocity", "neck_yaw/acceleration"]
    times = np.array([float(row[0]) for row in rows[1:]])
    assert (np.diff(times) > 0).all()
    samples, rate = soundfile.read(out / "agent.wav")
    assert len(samples) / rate == pytest.approx(SECONDS, abs=1e-3)
    assert (out / "report.html").stat().st_size > 100_000
    assert {path.stem for path in (out / "logs").glob("*.log")} == set(NODES)


def test_it_can_run_again_into_the_same_folder_but_not_over_other_files(finished, own):
    out, _ = finished
    from timar_ros.errors import UserError
    from timar_ros.graph.demo_results import prepare

    keep = out.parent / "keep"
    keep.mkdir()
    (keep / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"thesis\.tex"):
        prepare(keep)
    assert (keep / "thesis.tex").exists()
    done = run(*arguments(own, keep))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", NODES)
def test_killing_any_node_ends_the_demo_and_names_it(ros_domain, own, tmp_path, victim):
    process = start(*arguments(own, tmp_path / "out"))
    try:
        nodes = wait_until_up(process, tmp_path / "out")
        assert set(nodes) == set(NODES)
        nodes[victim].kill()
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1, stdout + stderr
    assert f"node {victim} was killed by SIGKILL" in stderr
    _, alive = psutil.wait_procs(nodes.values(), timeout=PATIENCE)
    assert not alive


def test_ctrl_c_ends_it_and_all_its_nodes(ros_domain, own, tmp_path):
    process = start(*arguments(own, tmp_path / "out"))
    try:
        nodes = wait_until_up(process, tmp_path / "out")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "interrupted" in stderr
    _, alive = psutil.wait_procs(nodes.values(), timeout=PATIENCE)
    assert not alive
    # What was recorded until then can be read.
    assert (tmp_path / "out" / "bag" / "metadata.yaml").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--user", "/no/such.wav"], "/no/such.wav"),
        (["--user-motion", "/no/such.npz"], "/no/such.npz"),
        (["--robot", "marvin"], "marvin"),
        (["--params-file", "/no/such.yaml"], "/no/such.yaml"),
        (["--speed", "-1"], "speed"),
        (["--recording", "also.wav"], "recording"),
    ],
)
def test_bad_input_is_said_in_one_line_before_anything_starts(own, tmp_path, more, named):
    done = run(*arguments(own, tmp_path / "out", *more))
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_a_node_refuses_is_shown_with_its_reason(ros_domain, own, tmp_path):
    done = run(*arguments(own, tmp_path / "out", "--model", "/no/such/model"))
    assert done.returncode == 2
    assert "timar_inference could not configure" in done.stderr
    assert "/no/such/model" in done.stderr


def test_up_brings_the_graph_up_and_ctrl_c_ends_it(ros_domain, own, tmp_path):
    where = ("--namespace", "robot1", "--enclaves", "timar")
    process = start("up", "--model", own / "tiny", "--device", "cpu", *where, "--logs", tmp_path)
    try:
        assert process.stdout is not None
        lines = []
        while not any("nodes are up" in line for line in lines):
            line = process.stdout.readline()
            assert line, "".join(lines)
            lines.append(line)
        nodes = nodes_of(process)
        status = run("status", "--namespace", "robot1", "--json")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    told = json.loads(status.stdout)
    assert {node["name"]: node["state"] for node in told["nodes"]} == dict.fromkeys(nodes, "active"), status.stdout
    assert (told["conversation"]["model"], told["conversation"]["turns_answered"]) == ("tiny", 0)
    # Nothing moves the head and nobody says where it is: retarget says so, in `timar status` and on the console.
    assert status.returncode == 1
    assert "WARN retarget: " in rest
    assert set(nodes) == {"audio_sink", "retarget", "timar_inference", "turn_segmenter"}
    _, alive = psutil.wait_procs(nodes.values(), timeout=PATIENCE)
    assert not alive
