"""Text to speech: the programs, the node `speech`, and `timar say` with a graph."""

from __future__ import annotations

import io
import itertools
import shutil
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from std_msgs.msg import Bool, Header, String
from support.ros_bench import Bench

from timar_ros.audio.text_to_speech import text_to_speech
from timar_ros.cli.main import main
from timar_ros.errors import UserError
from timar_ros.msg import AudioChunk, StreamInfo
from timar_ros.nodes.audio_sink import AudioSink
from timar_ros.nodes.speech import Speech
from timar_ros.ros import qos
from timar_ros.ros.messages import to_stamp

# A program that speaks like Piper: reads all text, writes raw samples. One sample of 1000 for each letter, 300 times.
CODE = "import sys; t = sys.stdin.read().strip(); sys.stdout.buffer.write(bytes([232, 3]) * 300 * len(t))"
PROGRAM = f'{sys.executable} -c "{CODE}"'


@pytest.fixture
def graph(ros_domain):
    """A sink without delay, and a probe that plays the part of the model's node."""
    with Bench() as bench:
        info = bench.probe.create_publisher(StreamInfo, "stream_info", qos.latched())
        info.publish(StreamInfo(mode="reactive", turn_duration=1.0, playback_delay=0.0))
        bench.sink = bench.add(AudioSink)
        bench.bring_up(bench.sink)
        bench.out = bench.listen(AudioChunk, "agent/audio_out", qos.audio())
        bench.until(lambda: bench.sink._delay_ns == 0)
        bench.connected(bench.sink._output, 1)
        yield bench


def heard(bench):
    return np.concatenate([np.zeros(0, np.float32), *(np.asarray(m.data, np.float32) for m in bench.out)])


def speech(bench, **parameters):
    node = bench.add(Speech, **parameters)
    bench.states = bench.listen(Bool, "agent/speaking", qos.latched())
    texts = bench.probe.create_publisher(String, "say", qos.turns())
    bench.bring_up(node)
    bench.connected(texts)
    bench.connected(bench.sink._output, 2)
    bench.connected(node._output)
    bench.until(lambda: node._ready)
    return node, texts


def test_a_text_is_said_and_the_state_is_what_is_played(graph):
    node, texts = speech(graph, engine="command", command=PROGRAM, command_rate=16000)
    # Taken at the publisher: the topic keeps the newest state alone, and a slow reader misses changes.
    states, publisher = [], node._state
    node._state = SimpleNamespace(publish=lambda message: (states.append(message.data), publisher.publish(message)))
    for text in ("hello", "you"):
        texts.publish(String(data=text))
    graph.until(lambda: len(heard(graph)) == 8 * 300 and graph.states and not graph.states[-1].data)
    np.testing.assert_allclose(heard(graph), 1000 / 32768, atol=1e-6)
    assert len({m.stream_id for m in graph.out}) == 2
    assert True in states
    assert all(one != other for one, other in itertools.pairwise(states))  # each change is told once
    assert node.statistics.counted("texts failed") == 0


def test_cancel_ends_the_program_and_drops_the_texts_that_wait(graph):
    node, texts = speech(graph, engine="command", command="cat /dev/zero", command_rate=16000)
    cancel = graph.probe.create_publisher(Header, "cancel", qos.commands())
    graph.connected(cancel, 2)
    for _ in range(2):
        texts.publish(String(data="on and on"))
    graph.until(lambda: len(graph.out) >= 10)
    cancel.publish(Header(stamp=to_stamp(node.now_ns())))
    graph.until(lambda: node.statistics.counted("texts cancelled") == 2 and not graph.states[-1].data)
    count = len(graph.out)
    node._publish()
    graph.executor.spin_once(timeout_sec=0.2)
    assert len(graph.out) == count
    assert node._speech.empty


def test_a_program_that_fails_is_told_and_the_next_text_is_said(graph):
    fails = f"{sys.executable} -c \"import sys; sys.exit('no voice' if 'bad' in sys.stdin.read() else 0)\""
    node, texts = speech(graph, engine="command", command=fails)
    texts.publish(String(data="bad"))
    graph.until(lambda: node.statistics.counted("texts failed") == 1)
    assert "failed with exit code 1: no voice" in node.diagnose()[1]
    texts.publish(String(data="good"))
    graph.until(lambda: node._trouble is None)


def in_thread(bench, *arguments):
    """A command beside the graph, which this thread spins meanwhile."""
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(list(arguments))))
    thread.start()
    bench.until(lambda: not thread.is_alive())
    return codes[0]


def test_timar_say_speaks_text_and_raw_samples(graph, monkeypatch, capsys):
    assert in_thread(graph, "say", "--engine", "command", "--command", PROGRAM, "--rate", "16000", "hello", "you") == 0
    assert len(heard(graph)) == 9 * 300
    graph.out.clear()
    data = np.arange(3000, dtype="<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": io.BufferedReader(io.BytesIO(data + b"x"))})())
    assert in_thread(graph, "say", "--pcm", "--rate", "22050") == 0
    np.testing.assert_allclose(heard(graph), np.arange(3000) / 32768, atol=1e-6)
    assert capsys.readouterr().out.splitlines() == ["played 0.17 s", "played 0.14 s"]


def test_timar_say_refuses_what_makes_no_sense(ros_domain, capsys):
    assert main(["say"]) == main(["say", "--pcm", "text"]) == 2
    assert "give a text" in capsys.readouterr().err
    assert main(["say", "--timeout", "0.1", "--engine", "command", "--command", "cat", "text"]) == 2
    assert "no graph without a namespace answered" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_ng_speaks():
    pieces = list(text_to_speech().speak("Hello, how are you?"))
    assert {rate for _, rate in pieces} == {22050}
    samples = np.concatenate([piece for piece, _ in pieces])
    assert 0.7 < len(samples) / 22050 < 3.0
    assert np.abs(samples).max() > 3000


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "piper", "voice": "nowhere.onnx"}, "needs a voice"),
        ({"engine": "command"}, "needs a command"),
        ({"engine": "command", "command": "no-such-program"}, "not installed"),
        ({"engine": "other"}, "use one of"),
    ],
)
def test_what_cannot_speak_is_told(options, reason):
    with pytest.raises(UserError, match=reason):
        text_to_speech(**options)
