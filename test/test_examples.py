"""Every example runs, on the sample that ships or on a graph of real nodes."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SAMPLE = ROOT / "samples" / "conversation.flac"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run an example as a user does, but in this process, where the libraries are loaded; what it prints."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def module(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def test_the_list_of_examples_is_whole() -> None:
    """One line each in examples/README.md."""
    text = (EXAMPLES / "README.md").read_text()
    missing = [p.name for p in EXAMPLES.iterdir() if p.name not in ("README.md", "__pycache__") and p.name not in text]
    assert not missing


def test_audio_to_motion(script: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    samples, rate = soundfile.read(SAMPLE)
    soundfile.write(tmp_path / "short.wav", samples[: 2 * rate], rate)
    script("audio_to_motion.py", tmp_path / "short.wav", tmp_path / "motion.npy")
    frames = np.load(tmp_path / "motion.npy")
    assert frames.shape == (50, 56)
    assert frames.std(axis=0).min() > 0.0


def test_motion_to_joints(script: Callable[..., str], tmp_path: Path) -> None:
    told = script("motion_to_joints.py", ROOT / "samples" / "conversation_agent.npz", "tiago", tmp_path / "joints.csv")
    assert len((tmp_path / "joints.csv").read_text().splitlines()) > 3000
    for line in told.splitlines():
        lowest, highest, lower, upper = (float(word) for word in line.split() if word[0] in "+-")
        assert lower <= lowest < highest <= upper


def test_a_robot_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of its README, in its order."""
    from timar_ros.cli.main import main
    from timar_ros.retarget import load_profile

    (tmp_path / "desk_lamp.urdf").write_text((EXAMPLES / "custom_robot" / "desk_lamp.urdf").read_text())
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLES / "custom_robot" / "README.md").read_text()
    commands = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("timar robots")]
    assert [main(words[1:]) for words in commands] == [0, 0]
    assert [joint.name for joint in load_profile("desk_lamp.yaml").neck] == ["turn", "nod"]


def test_a_speech_encoder_of_ones_own(script: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    told = script("custom_speech_encoder.py", tmp_path / "model")
    assert told == "'custom-encoder' (UNTRAINED): motion (50, 56)\n"


def test_speech_goes_out_and_motion_is_shown(ros_domain: int, tmp_path: Path) -> None:
    """The two plain ROS clients beside the graph's nodes, in rolling mode and real time."""
    pytest.importorskip("rclpy")
    pytest.importorskip("torch")
    from support.ros_bench import Bench
    from support.tiny_models import tiny_model

    from timar_ros.model import save_timar
    from timar_ros.msg import AudioChunk
    from timar_ros.nodes.audio_sink import AudioSink
    from timar_ros.nodes.timar_inference import TimarInference
    from timar_ros.nodes.turn_segmenter import TurnSegmenter
    from timar_ros.ros import qos

    speech = (0.3 * np.sin(np.arange(11025) * 0.1)).astype(np.float32)
    soundfile.write(tmp_path / "speech.wav", speech, 22050)
    save_timar(tiny_model(3), tmp_path / "tiny", name="tiny")
    with Bench() as bench:
        graph = [
            bench.add(AudioSink),
            bench.add(TimarInference, model=str(tmp_path / "tiny"), mode="rolling"),
            bench.add(TurnSegmenter, mode="rolling"),
        ]
        out = bench.listen(AudioChunk, "agent/audio_out", qos.audio())
        clients: list[Any] = [
            module("flame_listener").FlameListener(context=bench.context),
            module("speech_publisher").SpeechPublisher(str(tmp_path / "speech.wav"), context=bench.context),
        ]
        bench.bring_up(*graph)
        bench.connected(graph[1].streams[""].motion, 1)
        for client in clients:
            bench.executor.add_node(client)
        try:
            bench.until(lambda: out and out[-1].end_of_stream and clients[0].shown >= 5)
        finally:
            for client in clients:
                bench.executor.remove_node(client)
                client.destroy_node()
        heard = np.concatenate([np.asarray(message.data, np.float32) for message in out])
        np.testing.assert_allclose(heard, speech, atol=1e-4)  # the file holds 16 bits
