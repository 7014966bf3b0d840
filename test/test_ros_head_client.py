"""The client without ROS knowledge, with a real graph of three nodes in real time."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("torch")

from support.ros_bench import PATIENCE, Bench
from support.tiny_models import tiny_model

from timar_ros.errors import UserError
from timar_ros.model import save_timar
from timar_ros.msg import AudioChunk, Turn
from timar_ros.nodes.audio_sink import PERIOD, AudioSink
from timar_ros.nodes.timar_inference import TimarInference
from timar_ros.nodes.turn_segmenter import TurnSegmenter
from timar_ros.ros import Head, qos
from timar_ros.ros.messages import to_ns

RATE = 24000
MODE = {"mode": "rolling"}


def voice(seconds):
    return (8000 * np.sin(np.arange(round(seconds * RATE)) * 0.05)).astype(np.int16)


@pytest.fixture
def graph(ros_domain, tmp_path):
    save_timar(tiny_model(3), tmp_path / "tiny", name="tiny")
    with Bench() as bench:
        options = {"namespace": "robot1"}
        nodes = [
            bench.add(AudioSink, **options),
            bench.add(TimarInference, model=str(tmp_path / "tiny"), **MODE, **options),
            bench.add(TurnSegmenter, **MODE, **options),
        ]
        out = bench.listen(AudioChunk, "robot1/agent/audio_out", qos.audio())
        bench.turns = bench.listen(Turn, "robot1/turns", qos.turns())
        bench.sink, bench.cancelled_ns = nodes[0], []
        cancel = bench.sink._cancel

        def noted(message):
            cancel(message)
            bench.cancelled_ns.append(bench.sink.now_ns())

        bench.sink._cancel = noted
        bench.bring_up(*nodes)
        bench.connected(nodes[2]._output, 2)
        yield bench, out


@pytest.fixture
def head(graph):
    """The client; its constructor waits for the graph, which this thread must spin meanwhile."""
    import threading

    bench, _ = graph
    made = []
    thread = threading.Thread(target=lambda: made.append(Head(namespace="robot1", timeout=PATIENCE)))
    thread.start()
    bench.until(lambda: not thread.is_alive())
    with made[0] as head:
        bench.until(
            lambda: (
                head._node.count_publishers("/robot1/agent/audio_out") and head._node.count_publishers("/robot1/cancel")
            )
        )
        yield head


def samples(out):
    return np.concatenate([np.asarray(m.data, np.float32) for m in out]) if out else np.zeros(0, np.float32)


def test_what_is_said_is_played_and_moves_the_head(graph, head):
    """A second of speech in bursts, faster than real time: played whole, once, at its stamps; motion comes with it."""
    bench, out = graph
    moved = []
    head.on_motion(lambda times, frames: moved.append((times, frames)))
    head.on_motion(lambda times, frames: 1 / 0)  # a caller's mistake ends nothing
    assert head.mode == "rolling"
    assert head.lead == pytest.approx(0.5)
    speech = voice(1.0)
    for piece in np.array_split(speech, 7):
        number = head.say(piece, RATE)
    head.finish()
    assert head.played().seconds == 0.0
    bench.until(lambda: out and out[-1].end_of_stream)
    np.testing.assert_allclose(samples(out), speech / 32768, atol=1e-6)
    assert head.wait(10.0)
    played = head.played()
    assert (played.utterance, played.seconds) == (number, pytest.approx(1.0))
    assert bench.sink.statistics.counted("samples lost") == 0
    bench.until(lambda: len(moved) >= 3)
    times, frames = moved[0]
    assert frames.shape == (len(times), 56)
    assert np.diff(times) == pytest.approx(0.04, abs=1e-4)
    assert np.isfinite(frames).all()


def test_cancel_silences_the_sink_at_once_and_what_follows_is_said(graph, head):
    bench, out = graph
    cancelled = []
    head.on_cancel(lambda: cancelled.append(1))
    first = head.say(voice(5.0), RATE)
    head.finish()
    bench.until(lambda: head.played().seconds > 0.1)
    head.cancel()
    second = head.say(voice(0.2), RATE)
    head.finish()
    bench.until(lambda: head.played().utterance == second and not head.played().speaking)
    bench.until(lambda: out[-1].end_of_stream and len({m.stream_id for m in out}) == 2)  # this process hears it later
    assert cancelled == [1]
    assert second == first + 1
    streams = {m.stream_id: [] for m in out}
    for message in out:
        streams[message.stream_id].append(message)
    old, new = streams.values()
    assert len(samples(old)) / RATE < 4.0
    # The sink gives a chunk out up to half a period early; after the cancel it gives out nothing more of the stream.
    assert to_ns(old[-1].header.stamp) <= bench.cancelled_ns[0] + round(PERIOD * 5e8)
    longest = max(len(m.data) for m in old) / RATE
    assert longest <= 0.2  # so that what has begun ends within a hop
    np.testing.assert_allclose(samples(new), voice(0.2) / 32768, atol=1e-6)


def test_the_partner_is_heard_and_forgotten(graph, head):
    bench, _ = graph
    for _ in range(3):
        head.hear(voice(0.4), RATE)
    bench.until(lambda: any(np.abs(turn.user_speech).max() > 0.1 for turn in bench.turns if len(turn.user_speech)))
    import threading

    asked = threading.Thread(target=head.reset)
    asked.start()
    bench.until(lambda: not asked.is_alive())
    assert bench.nodes[1].statistics.counted("resets") == 1


def test_no_graph_and_a_lead_too_short_are_told(ros_domain):
    with pytest.raises(UserError, match=r"no graph in namespace 'nowhere' answered in 0.1 s: start it"):
        Head(namespace="nowhere", timeout=0.1)
    with pytest.raises(UserError, match="cannot join ROS 2 as namespace 'no such name'"):
        Head(namespace="no such name", timeout=0.1)
