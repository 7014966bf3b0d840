"""A chosen channel of the user's microphone array: heard live, told in the bag, and heard again when it is replayed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("torch")

from support.ros_bench import Bench
from support.tiny_models import tiny_model

from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.bag_messages import frames_of
from timar_ros.bags.replay import recorded_run
from timar_ros.cli.main import main
from timar_ros.data.audio_files import write_audio
from timar_ros.model import save_timar
from timar_ros.msg import AudioChunk, FlameMotion
from timar_ros.nodes.recorder import Recorder
from timar_ros.nodes.timar_inference import TimarInference
from timar_ros.nodes.turn_segmenter import TurnSegmenter
from timar_ros.ros import messages, qos

RATE, TURNS, SIZE = 16000, 3, 640


def motion_of(bag):
    with BagReader(bag) as reader:
        return {m.turn: frames_of(m).tobytes() for _, _, m in reader.messages({reader.find("agent/motion")})}


@pytest.fixture
def model(tmp_path):
    save_timar(tiny_model(1), tmp_path / "tiny", name="tiny")
    return str(tmp_path / "tiny")


def test_a_bag_with_a_chosen_channel_replays_to_the_same_bytes(ros_domain, tmp_path, model):
    rng = np.random.default_rng(0)
    user = rng.normal(0.0, 0.1, (RATE * TURNS, 3)).astype(np.float32)
    agent = rng.normal(0.0, 0.1, RATE * TURNS).astype(np.float32)
    with Bench() as bench:
        segmenter = bench.add(TurnSegmenter, channel=1, max_lateness=5.0)
        inference = bench.add(TimarInference, channel=1, model=model, device="cpu", seed=3, queue_depth=50)
        recorder = bench.add(Recorder, path=str(tmp_path / "bag"))
        bench.bring_up(recorder, inference, segmenter)
        got = bench.listen(FlameMotion, "agent/motion", qos.motion())
        voices = {
            role: bench.probe.create_publisher(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")
        }
        for publisher in voices.values():
            bench.connected(publisher, 2)
        bench.until(lambda: inference.count_publishers("agent/motion") and bench.probe.count_subscribers("turns") >= 2)
        start = segmenter.now_ns()
        for index in range(0, RATE * TURNS, SIZE):
            stamp = start + index * 1_000_000_000 // RATE
            last = index + SIZE == RATE * TURNS
            for role, samples in (("user", user), ("agent", agent)):
                part = samples[index : index + SIZE]
                voices[role].publish(messages.audio_message(stamp, index, RATE, part, stream_id=1, end=last))
        bench.until(lambda: len(got) >= TURNS)
        assert segmenter._disagreement is None
    live = motion_of(tmp_path / "bag")
    assert set(live) == set(range(TURNS))
    with BagReader(tmp_path / "bag") as reader:
        assert recorded_run(reader).options["channel"] == 1
    command = ["replay", str(tmp_path / "bag"), "--input", "audio", "--model", model, "--robot", "none", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "again")]) == 0
    assert motion_of(tmp_path / "again" / "bag") == live
    assert main([*command, "--channel", "0", "--out", str(tmp_path / "other")]) == 0
    assert motion_of(tmp_path / "other" / "bag") != live
    assert main([*command, "--channel", "5", "--out", str(tmp_path / "lacking")]) == 2


def test_nodes_that_hear_different_channels_say_so(ros_domain, model):
    with Bench() as bench:
        segmenter = bench.add(TurnSegmenter, channel=2)
        inference = bench.add(TimarInference, model=model, device="cpu")
        bench.bring_up(inference, segmenter)
        bench.until(lambda: segmenter._disagreement)
        assert "'channel' is 2.0 here, but -1.0" in segmenter._disagreement


def test_generate_hears_one_channel_of_a_file(tmp_path, model, capsys):
    rng = np.random.default_rng(0)
    both = rng.normal(0.0, 0.1, (RATE, 2)).astype(np.float32)
    agent = rng.normal(0.0, 0.1, RATE).astype(np.float32)
    import soundfile

    soundfile.write(tmp_path / "both.wav", both, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "second.wav", both[:, 1], RATE, subtype="FLOAT")
    write_audio(tmp_path / "agent.wav", agent)
    made = {}
    for name, more in (("both", ["--channel", "1"]), ("second", []), ("mean", None)):
        file = "both" if more is None else name
        command = ["generate", "--user", tmp_path / f"{file}.wav", "--agent", tmp_path / "agent.wav", "--model", model]
        assert main([*map(str, command), *(more or []), "--quiet", "--out", str(tmp_path / f"{name}.npz")]) == 0
        with np.load(tmp_path / f"{name}.npz") as arrays:
            made[name] = np.concatenate([arrays["exp"], arrays["pose"]], axis=1)
    np.testing.assert_array_equal(made["both"], made["second"])
    assert np.abs(made["both"] - made["mean"]).max() > 1e-3
    command = ["generate", "--agent", str(tmp_path / "agent.wav"), "--channel", "1", "--model", model]
    assert main([*command, "--out", str(tmp_path / "x.npz")]) == 2
    assert "--channel" in capsys.readouterr().err
