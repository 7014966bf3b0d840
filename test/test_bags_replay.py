"""Bags through the pipeline again: the same bytes as live, from turns or audio, ours or foreign."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from support import bag_factory as factory

from timar_ros.bags import bag_messages
from timar_ros.bags.bag_files import BagReader, BagWriter
from timar_ros.bags.bag_foreign import AudioEvent, Inputs, MotionEvent, read_mapping
from timar_ros.bags.bag_types import new_typestore
from timar_ros.bags.recording import load_recording
from timar_ros.bags.replay import Recorded, recorded_run, replay, turns_of_events
from timar_ros.cli.main import main
from timar_ros.data.motion_files import read_motion
from timar_ros.errors import UserError
from timar_ros.options import options_of
from timar_ros.retarget.profile import load_profile
from timar_ros.retarget.retarget_options import RetargetOptions
from timar_ros.streaming.sampling_options import PipelineOptions

pytest.importorskip("torch", reason="the pipeline needs torch")
pytest.importorskip("transformers", reason="the pipeline needs transformers")

from timar_ros.streaming.offline import resolve_model

MODEL = ("--model", "random-mini", "--quiet")


def motion_of(folder: Path) -> dict[int, bytes]:
    with BagReader(folder) as bag:
        topic = bag.find("agent/motion")
        assert topic is not None
        return {m.turn: bag_messages.frames_of(m).tobytes() for _, _, m in bag.messages({topic})}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag whose agent/motion is what the pipeline makes of it (turn 2 dropped, as by a slow machine)."""
    folder = tmp_path_factory.mktemp("lived")
    factory.write_bag(folder / "heard", 5.0, joints=False, dropped=(2,), info={"guidance": 1.5, "seed": 4})
    assert main(["replay", str(folder / "heard"), "--out", str(folder / "lived"), *MODEL]) == 0
    return folder / "lived"


def test_a_replayed_replay_is_the_same(lived: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(lived), "--out", str(tmp_path / "again"), *MODEL]) == 0
    assert "4 of 4 turns" in capsys.readouterr().out
    assert motion_of(tmp_path / "again" / "bag") == motion_of(lived / "bag")
    assert set(motion_of(lived / "bag")) == {0, 1, 3, 4}
    first, second = (np.load(folder / "motion.npz") for folder in (lived, tmp_path / "again"))
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_settings_come_from_the_bag_unless_given(lived: Path, tmp_path: Path) -> None:
    with BagReader(lived / "bag") as bag:
        options = recorded_run(bag).options
    assert (options["guidance"], options["seed"], options["playback_delay"]) == (1.5, 4, 1.3)
    assert main(["replay", str(lived), "--out", str(tmp_path / "other"), "--seed", "5", *MODEL]) == 0
    assert motion_of(tmp_path / "other" / "bag")[0] != motion_of(lived / "bag")[0]


def test_threads_are_heard_and_told(lived: Path, tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        assert main(["replay", str(lived), "--out", str(tmp_path / "two"), "--threads", "2", *MODEL]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with BagReader(tmp_path / "two" / "bag") as bag:
        assert recorded_run(bag).threads == 2


def test_turns_cut_anew_are_the_recorded_ones(tmp_path: Path) -> None:
    """From audio and motion in order of arrival, the builder gives what the recorded turns hold."""
    factory.write_bag(tmp_path / "bag", 4.0, joints=False)
    with BagReader(tmp_path / "bag") as bag:
        turns = [turn for _, turn in turns_of_events(Inputs(bag).events(), 1.0, PipelineOptions())]
        recorded = [m for _, _, m in bag.messages({"/turns"})]
    assert [turn.number for turn in turns] == [0, 1, 2, 3]
    for turn, message in zip(turns, recorded, strict=True):
        np.testing.assert_array_equal(turn.user_speech, message.user_speech)
        np.testing.assert_array_equal(turn.agent_speech, message.agent_speech)
        assert turn.stamp_ns == bag_messages.stamp_ns(message.header.stamp)
        assert turn.user_motion is not None
        np.testing.assert_allclose(turn.user_motion, message.user_motion.reshape(-1, 56), atol=1e-6)


def test_replay_writes_what_the_report_needs(lived: Path) -> None:
    recording = load_recording(lived)
    assert recording.user_audio is not None
    np.testing.assert_array_equal(recording.user_audio, factory.voice(5.0, "user"))
    assert recording.joints is not None
    assert recording.joints.names[:3] == factory.JOINTS[:3]
    assert recording.dropped == 1
    assert read_motion(lived / "motion.npz").shape == (125, 56)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs the ROS graph")
@pytest.mark.parametrize("source", ["turns", "audio"])
def test_live_equals_offline(live_run: Path, tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "replay"
    assert main(["replay", str(live_run), "--out", str(out), "--input", source, *MODEL]) == 0
    live, offline = motion_of(live_run / "bag"), motion_of(out / "bag")
    assert len(live) >= 3
    assert offline == live, capsys.readouterr().out


@pytest.fixture(scope="module")
def live_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run of the graph on four seconds of conversation."""
    pytest.importorskip("rclpy", reason="no ROS 2 in this environment")
    pytest.importorskip("timar_ros.msg", reason="the interfaces are not built in this environment")
    folder = tmp_path_factory.mktemp("live")
    voices = np.stack([factory.voice(4.0, "user"), factory.voice(4.0, "agent")], axis=1)
    soundfile.write(folder / "talk.flac", voices, 16000)
    command = [sys.executable, "-m", "timar_ros.cli.main", "demo", "--recording", folder / "talk.flac"]
    command += ["--out", folder / "run", "--speed", "0", "--no-report", "--model", "random-mini"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=240, check=False, env=dict(os.environ)
    )
    assert (folder / "run" / "bag" / "metadata.yaml").exists(), done.stdout + done.stderr
    return folder / "run"


# What a bag says of the run that made it ------------------------------------------------------------------------------

OFF_DEFAULT: dict[str, Any] = {
    "context_seconds": 4.0, "context_policy": "stepped", "mask_history_agent": False, "guidance": 1.37,
    "temperature": 0.123456789, "sampling_steps": 3, "noise_correlation": 0.31, "head_crossover": 0.7,
    "engine": "oracle", "mode": "anticipatory", "seed": 2**40 + 1, "normalising": "running", "seams": False,
    "playback_delay": 0.4321, "planning_lead": 0.44, "hop": 0.04, "hop_margin": 0.16, "look_ahead": 0.6,
    "liveliness": 1.5, "follow_partner": False, "channel": 0,
}  # fmt: skip
RETARGETED: dict[str, Any] = {
    "neutral": "fixed", "neutral_pose": (0.01, -0.02, 0.03), "neutral_seconds": 11.0, "speaking_gain": 0.61,
    "listening_gain": 1.21, "jaw_gain": 0.7, "nod_gain": 1.3, "speaking_speed": 0.9, "listening_speed": 0.8,
    "timeout": 0.7, "ease": 1.5, "resume": 0.1, "gaze_mode": "nods", "gaze_frame": "torso",
    "gaze_origin": (0.0, 0.1, 1.2), "gaze_share": 0.6, "gaze_seconds": 0.7, "gaze_timeout": 3.0,
    "nod_seconds": 0.9, "idle_amplitude": 0.01,
    "max_head": 2.0, "max_jaw": 1.2, "knot_rate": 20.0,
}  # fmt: skip


def joints_of(folder: Path) -> list[bytes]:
    with BagReader(folder) as bag:
        return [m.position.tobytes() + m.velocity.tobytes() for _, _, m in bag.messages({"/joint_states"})]


def test_a_bag_says_what_made_it_whatever_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option off its default, and no flag: the replay has the bytes of the run."""
    options, retarget = PipelineOptions(**OFF_DEFAULT), RetargetOptions(**RETARGETED)
    for own, usual in ((options, PipelineOptions()), (retarget, RetargetOptions())):
        kept = {item.name for item in dataclasses.fields(own) if getattr(own, item.name) == getattr(usual, item.name)}
        assert kept <= {"normalising"}  # a bag is never heard whole before it is replayed
    looks = [(0.5 * half, "torso", (1.0, 0.8, 1.0)) for half in range(12)]
    looks.insert(6, (2.9, "camera", (1.0, -0.8, 1.0)))  # in another frame: not followed
    factory.write_bag(tmp_path / "heard", 6.0, joints=False, looks=looks)
    moved = Recorded(robot="pepper", rate=50.0, retarget=retarget)
    # Turns of a live run hold the plans, too: what is cut from the audio here is what a segmenter would have given.
    with BagReader(tmp_path / "heard") as bag:
        model, robot = resolve_model(), load_profile("pepper")
        replay(bag, model, options, tmp_path / "run", source="audio", robot=robot, recorded=moved)
    assert main(["replay", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "--input", "audio", "--quiet"]) == 0
    run, again = (tmp_path / folder / "bag" for folder in ("run", "again"))
    assert motion_of(again) == motion_of(run), capsys.readouterr().out
    assert len(motion_of(run)) >= 6
    assert joints_of(again) == joints_of(run)
    with BagReader(again) as bag:
        yaw = [float(m.position[list(m.name).index("HeadYaw")]) for _, _, m in bag.messages({"/joint_states"})]
        assert np.median(yaw[len(yaw) // 2 :]) == pytest.approx(0.6 * np.arctan2(0.7, 1.0), abs=0.1)
        recorded = recorded_run(bag)
    assert recorded.options == dataclasses.asdict(options)
    assert (recorded.robot, recorded.rate, recorded.retarget) == ("pepper", 50.0, retarget)


OLD_STREAM_INFO = """
std_msgs/Header header
string mode
float32 turn_duration
uint32 sample_rate
float32 motion_rate
float32 playback_delay
string model
string model_sha256
bool trained
string device
string dtype
string context_policy
float32 context_seconds
uint32 sampling_steps
float32 guidance
float32 temperature
int64 seed
string normalising
"""


def test_bags_of_the_first_version_are_read_with_todays_defaults(tmp_path: Path) -> None:
    """Their StreamInfo lacks options and holds numbers of single precision."""
    out = ForeignBag(tmp_path / "bag", {"timar_ros/msg/StreamInfo": OLD_STREAM_INFO}, own=False)
    described = {"mode": "reactive", "turn_duration": 1.0, "sample_rate": 16000, "motion_rate": 25.0, "seed": 3}
    described |= {"playback_delay": 1.15, "model": "timar-mini", "model_sha256": "0", "trained": True}
    described |= {"device": "cpu", "dtype": "bfloat16", "context_policy": "stepped", "context_seconds": 8.0}
    described |= {"sampling_steps": 5, "guidance": 1.15, "temperature": 0.9, "normalising": "running"}
    with out.bag:
        message = out.types["timar_ros/msg/StreamInfo"](header=bag_messages.header(out.types, 1), **described)
        out.write("/stream_info", 1, message)
    with BagReader(tmp_path / "bag") as bag:
        recorded = recorded_run(bag)
    assert (recorded.model, recorded.dtype, recorded.threads) == ("timar-mini", "bfloat16", None)
    assert (recorded.robot, recorded.retarget) == ("", RetargetOptions())
    expected = PipelineOptions(
        playback_delay=1.15, context_policy="stepped", context_seconds=8.0, sampling_steps=5, guidance=1.15,
        temperature=0.9, seed=3,
    )  # fmt: skip
    assert PipelineOptions(**recorded.options) == expected


@pytest.fixture
def same_threads() -> Iterator[None]:
    """What a test replays may change torch's threads; the tests after it get them as they were."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs the ROS graph")
@pytest.mark.usefixtures("same_threads")
def test_live_equals_offline_with_every_option_off_its_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real graph, its parameters from a file; then `timar replay BAG` alone."""
    pytest.importorskip("rclpy", reason="no ROS 2 in this environment")
    pytest.importorskip("timar_ros.msg", reason="the interfaces are not built in this environment")
    live = {name for name, item in options_of(PipelineOptions).items() if item.metadata["live"]}
    # The graph tells these to several nodes, so they are its options and not a node's own.
    timing = ("planning_lead", "hop", "hop_margin", "look_ahead")
    live.remove("channel")  # a recording's speakers have one channel each (test_nodes_channel)
    inference = {name: OFF_DEFAULT[name] for name in live - {"mode", "seed", *timing}} | {"torch_threads": 2}
    moving = {name: list(v) if isinstance(v, tuple) else v for name, v in RETARGETED.items()}
    moving = {name: v for name, v in moving.items() if name not in ("nod_seconds", "max_head", "max_jaw", "knot_rate")}
    nodes = {"timar_inference": inference, "retarget": moving}
    params = {f"/**/{name}": {"ros__parameters": values} for name, values in nodes.items()}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    voices = np.stack([factory.voice(4.0, "user"), factory.voice(4.0, "agent")], axis=1)
    soundfile.write(tmp_path / "talk.flac", voices, 16000)
    command = [sys.executable, "-m", "timar_ros.cli.main", "demo", "--recording", tmp_path / "talk.flac", "--no-report"]
    command += ["--out", tmp_path / "run", "--speed", "0", "--dtype", "bfloat16"]
    command += ["--params-file", tmp_path / "params.yaml", "--robot", "pepper", "--mode", "anticipatory"]
    command += ["--seed", OFF_DEFAULT["seed"]]
    for name in timing:
        command += [f"--{name.replace('_', '-')}", OFF_DEFAULT[name]]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=240, check=False, env=dict(os.environ)
    )
    assert (tmp_path / "run" / "bag" / "metadata.yaml").exists(), done.stdout + done.stderr
    assert main(["replay", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    run, again = (motion_of(tmp_path / folder / "bag") for folder in ("run", "again"))
    assert len(run) >= 3
    assert again == run, capsys.readouterr().out
    with BagReader(tmp_path / "again" / "bag") as bag:
        recorded = recorded_run(bag)
    assert {name: recorded.options[name] for name in live} == {name: OFF_DEFAULT[name] for name in live}
    assert (recorded.dtype, recorded.threads, recorded.robot) == ("bfloat16", 2, "pepper")
    assert {name: getattr(recorded.retarget, name) for name in moving} == {name: RETARGETED[name] for name in moving}


# Foreign bags ---------------------------------------------------------------------------------------------------------

ROS_DRIVERS = {
    "audio_common_msgs/msg/AudioData": "uint8[] data\n",
    "audio_common_msgs/msg/AudioDataStamped": "std_msgs/Header header\naudio_common_msgs/AudioData audio\n",
    "audio_common_msgs/msg/AudioInfo": (
        "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\nstring coding_format\n"
    ),
}
MGONZS13 = {
    "audio_common_msgs/msg/AudioData": (
        "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\nuint8[] uint8_data\n"
    ),
    "audio_common_msgs/msg/AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk\n",
    "audio_common_msgs/msg/Audio": "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info\n",
    "audio_common_msgs/msg/AudioStamped": "std_msgs/Header header\naudio_common_msgs/Audio audio\n",
}


class ForeignBag:
    """Writes a bag with types of other packages."""

    def __init__(self, path: Path, definitions: dict[str, str] | None = None, own: bool = True) -> None:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.store = new_typestore() if own else get_typestore(Stores.ROS2_JAZZY)
        for name, text in (definitions or {}).items():
            self.store.register(get_types_from_msg(text, name))
        self.types = self.store.types
        self.bag = BagWriter(path)

    def write(self, topic: str, at_ns: int, message: Any) -> None:
        kind = message.__msgtype__
        text, _ = self.store.generate_msgdef(kind, ros_version=2)
        self.bag.add_topic(topic, kind, msgdef=text, digest=self.store.hash_rihs01(kind))
        self.bag.write_raw(topic, at_ns, bytes(self.store.serialize_cdr(message, kind)))


def int16(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.round(samples * 32767).astype("<i2")


CHUNK = 320
VOICE = factory.voice(2.0, "user")


def heard(path: Path, mapping: dict[str, Any]) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """The user's samples in their order, and all events."""
    with BagReader(path) as bag:
        events = list(Inputs(bag, mapping).events())
    audio = [e for e in events if isinstance(e, AudioEvent) and e.role == "user"]
    assert [e.sample_index for e in audio] == [CHUNK * i for i in range(len(audio))]
    assert {e.stream_id for e in audio} == {0}
    return np.concatenate([e.samples[:, 0] for e in audio]), events


def test_ros_drivers_stamped_audio_with_info(tmp_path: Path) -> None:
    out = ForeignBag(tmp_path / "bag", ROS_DRIVERS)
    info = out.types["audio_common_msgs/msg/AudioInfo"](1, 16000, "S16LE", 256, "WAVE")
    with out.bag:
        out.write("/mic/audio_info", 1, info)
        for index in range(0, len(VOICE), CHUNK):
            data = np.frombuffer(int16(VOICE[index : index + CHUNK]).tobytes(), np.uint8)
            at = 10**9 + index * 62_500
            stamped = out.types["audio_common_msgs/msg/AudioDataStamped"](
                bag_messages.header(out.types, at), out.types["audio_common_msgs/msg/AudioData"](data)
            )
            out.write("/mic/audio_stamped", at + 20_000_000, stamped)
    samples, events = heard(tmp_path / "bag", {"user_audio": {"topic": "/mic/audio_stamped"}})
    np.testing.assert_allclose(samples, VOICE, atol=2 / 32768)
    assert events[0].stamp_ns == 10**9


def test_ros_drivers_without_stamps_ends_when_it_came(tmp_path: Path) -> None:
    out = ForeignBag(tmp_path / "bag", ROS_DRIVERS)
    with out.bag:
        for index in range(0, len(VOICE), CHUNK):
            data = np.frombuffer(int16(VOICE[index : index + CHUNK]).tobytes(), np.uint8)
            jitter = (index // CHUNK) % 3 * 4_000_000
            message = out.types["audio_common_msgs/msg/AudioData"](data)
            out.write("/audio", 10**9 + (index + CHUNK) * 62_500 + jitter, message)
    mapping = {"user_audio": {"topic": "/audio", "rate": 16000, "encoding": "S16LE"}}
    samples, events = heard(tmp_path / "bag", mapping)
    np.testing.assert_allclose(samples, VOICE, atol=2 / 32768)
    assert [e.stamp_ns for e in events] == [10**9 + 20_000_000 * i for i in range(len(events))]


def test_mp3_is_refused_with_a_hint(tmp_path: Path) -> None:
    out = ForeignBag(tmp_path / "bag", ROS_DRIVERS)
    with out.bag:
        out.write("/audio_info", 1, out.types["audio_common_msgs/msg/AudioInfo"](1, 16000, "S16LE", 128, "MP3"))
        out.write("/audio", 2, out.types["audio_common_msgs/msg/AudioData"](np.zeros(417, np.uint8)))
    with BagReader(tmp_path / "bag") as bag, pytest.raises(UserError, match="format:=wave"):
        Inputs(bag, {"user_audio": {"topic": "/audio"}})


def test_mgonzs13_audio(tmp_path: Path) -> None:
    out = ForeignBag(tmp_path / "bag", MGONZS13)
    t = out.types
    nothing = {
        "int32_data": np.zeros(0, np.int32),
        "int8_data": np.zeros(0, np.int8),
        "uint8_data": np.zeros(0, np.uint8),
    }
    with out.bag:
        for index in range(0, len(VOICE), CHUNK):
            data = t["audio_common_msgs/msg/AudioData"](
                float32_data=np.zeros(0, np.float32), int16_data=int16(VOICE[index : index + CHUNK]), **nothing
            )
            audio = t["audio_common_msgs/msg/Audio"](data, t["audio_common_msgs/msg/AudioInfo"](8, 1, 16000, CHUNK))
            at = 10**9 + index * 62_500
            stamped = t["audio_common_msgs/msg/AudioStamped"](bag_messages.header(t, at), audio)
            out.write("/audio", at, stamped)
    samples, _ = heard(tmp_path / "bag", {"user_audio": {"topic": "/audio"}})
    np.testing.assert_allclose(samples, VOICE, atol=2 / 32768)


def test_raw_pcm_with_given_rate(tmp_path: Path) -> None:
    out = ForeignBag(tmp_path / "bag")
    t = out.types
    layout = t["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    with out.bag:
        for index in range(0, len(VOICE), CHUNK):
            data = int16(VOICE[index : index + CHUNK])
            out.write("/pcm", 10**9 + index * 62_500, t["std_msgs/msg/Int16MultiArray"](layout, data))
    samples, _ = heard(tmp_path / "bag", {"user_audio": {"topic": "/pcm", "rate": 16000}})
    np.testing.assert_allclose(samples, VOICE, atol=2 / 32768)
    with BagReader(tmp_path / "bag") as bag, pytest.raises(UserError, match="give sample rate"):
        Inputs(bag, {"user_audio": {"topic": "/pcm"}})


def test_head_from_a_pose_and_from_tf(tmp_path: Path) -> None:
    out = ForeignBag(tmp_path / "bag")
    t = out.types
    # A head that faces the robot (half a turn about z) and looks 0.3 rad down.
    half = np.array([np.sin(0.15), 0.0, np.cos(0.15)])  # sin about y, …
    down = np.array([0.0, half[0], 0.0, half[2]])
    facing = _times([0.0, 0.0, 1.0, 0.0], down)
    orientation = t["geometry_msgs/msg/Quaternion"](*facing)
    with out.bag:
        for index in range(50):
            at = 10**9 + index * 40_000_000
            chunk = bag_messages.audio_chunk(t, at, index * 640, 16000, VOICE[index * 640 : index * 640 + 640])
            out.write("/user/audio", at, chunk)
            header = bag_messages.header(t, at, "base_link")
            pose = t["geometry_msgs/msg/Pose"](t["geometry_msgs/msg/Point"](1.0, 0.0, 0.0), orientation)
            out.write("/face", at, t["geometry_msgs/msg/PoseStamped"](header, pose))
            move = t["geometry_msgs/msg/Transform"](t["geometry_msgs/msg/Vector3"](1.0, 0.0, 0.0), orientation)
            tf = t["geometry_msgs/msg/TransformStamped"](header, "face_1", move)
            out.write("/tf", at, t["tf2_msgs/msg/TFMessage"]([tf]))
    for entry in ({"topic": "/face"}, {"frame": "face_1", "reference": "base_link"}):
        with BagReader(tmp_path / "bag") as bag:
            events = [e for e in Inputs(bag, {"user_motion": entry}).events() if isinstance(e, MotionEvent)]
        assert len(events) == 50
        np.testing.assert_allclose(events[7].frames[0, 53:], [0.3, 0.0, 0.0], atol=1e-6)
        assert np.isnan(events[7].frames[0, :53]).all()


def _times(a: Any, b: Any) -> np.ndarray[Any, Any]:
    from scipy.spatial.transform import Rotation

    return (Rotation.from_quat(a) * Rotation.from_quat(b)).as_quat()


def test_what_is_missing_is_said_before_the_run(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/user/audio", "timar_ros/msg/AudioChunk")
        bag.write("/user/audio", 1, bag_messages.audio_chunk(bag.types, 1, 0, 16000, np.zeros(160)))
    with BagReader(tmp_path / "bag") as reader:
        notes = " ".join(Inputs(reader).notes)
    assert "agent's audio is MISSING" in notes
    assert "head is MISSING" in notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user_voice: /a", "user_audio, agent_audio, user_motion"),
        ("user_audio: {rate: 3}", "names no topic"),
        ("user_audio: {topic: /a, speed: 3}", "is a topic's name"),
        ("user_audio: [", "no valid YAML"),
        ("- a", "a topic mapping has"),
    ],
)
def test_a_mapping_that_is_not_understood(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "topics.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        read_mapping(tmp_path / "topics.yaml")


@pytest.mark.parametrize("arguments", [["--topics", "/nowhere.yaml"], ["--input", "turns"], ["--robot", "hal9000"]])
def test_bad_input_ends_with_2(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/user/audio", "timar_ros/msg/AudioChunk")
        bag.write("/user/audio", 1, bag_messages.audio_chunk(bag.types, 1, 0, 16000, np.zeros(160)))
    assert main(["replay", str(tmp_path / "bag"), "--out", str(tmp_path / "out"), *MODEL, *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("timar replay: error: ")
    assert not (tmp_path / "out" / "bag").exists()
