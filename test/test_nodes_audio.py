"""Nodes audio_source, turn_segmenter and audio_sink: real time, simulated time, losses, late joiners, restarts."""

from __future__ import annotations

import time

import numpy as np
import pytest
import soundfile

pytest.importorskip("rclpy")

from rosgraph_msgs.msg import Clock
from support.ros_bench import Bench

from timar_ros.data.audio_files import load_conversation
from timar_ros.data.motion_files import write_motion
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn
from timar_ros.nodes.audio_sink import AudioSink
from timar_ros.nodes.audio_source import AudioSource
from timar_ros.nodes.turn_segmenter import TurnSegmenter
from timar_ros.ros import qos
from timar_ros.ros.messages import audio_message, motion_message, to_ns, turn

SECONDS = 2.4


@pytest.fixture
def bench(ros_domain):
    with Bench() as bench:
        yield bench


@pytest.fixture
def recording(tmp_path):
    rng = np.random.default_rng(0)
    samples = rng.uniform(-0.5, 0.5, (round(SECONDS * 16000), 2)).astype(np.float32)
    soundfile.write(tmp_path / "talk.wav", samples, 16000, subtype="FLOAT")
    frames = rng.normal(size=(round(SECONDS * 25), 56)).astype(np.float32) * 0.1
    frames[30:33] = np.nan
    write_motion(tmp_path / "user.npz", frames)
    return {"recording": str(tmp_path / "talk.wav"), "user_motion": str(tmp_path / "user.npz")}


def play(bench, recording, speed, max_lateness=0.1, **more):
    """The recording through source and segmenter; the turns that came of it."""
    clock = {"publish_clock": True, "answered_by": "turns"} if speed != 1.0 else {}
    segmenter = bench.add(TurnSegmenter, use_sim_time=speed != 1.0, max_lateness=max_lateness)  # as in the graph
    source = bench.add(AudioSource, speed=speed, start_delay=0.0, **recording, **clock, **more)
    got = bench.listen(Turn, "turns", qos.turns())
    bench.bring_up(segmenter, source)
    bench.until(lambda: len(got) == 3)
    return [turn(message) for message in got], segmenter, source


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.number == b.number
        np.testing.assert_array_equal(a.user_speech, b.user_speech)
        np.testing.assert_array_equal(a.agent_speech, b.agent_speech)
        np.testing.assert_array_equal(a.user_motion, b.user_motion)


def test_a_recording_becomes_the_same_turns_at_any_pace(ros_domain, recording):
    made = {}
    for speed in (1.0, 8.0, 0.0):
        with Bench() as bench:
            made[speed], segmenter, _ = play(bench, recording, speed)
            assert segmenter.builder.counters.lost_user == segmenter.builder.counters.late_chunks == 0
    same(made[1.0], made[0.0])
    same(made[8.0], made[0.0])
    user, agent, _ = load_conversation(recording["recording"])
    for number, each in enumerate(made[0.0]):
        part = slice(number * 16000, (number + 1) * 16000)
        np.testing.assert_array_equal(each.user_speech[: len(user[part])], user[part])
        np.testing.assert_array_equal(each.agent_speech[: len(agent[part])], agent[part])
    assert np.isfinite(made[0.0][0].user_motion).all()


@pytest.mark.parametrize("chunk", [0.01, 0.04])
def test_a_head_out_of_sight_delays_no_turn(bench, recording, tmp_path, chunk):
    """At speed 0 the clock stops until the turn is answered, so `max_lateness` after its end does not come."""
    frames = np.full((round(SECONDS * 25), 56), np.nan, np.float32)
    frames[:20], frames[30:45] = 0.1, 0.2  # lost at the end of turn 0, and in turn 1 up to the end
    write_motion(tmp_path / "lost.npz", frames)
    begun = time.monotonic()
    turns, _, source = play(bench, recording | {"user_motion": str(tmp_path / "lost.npz")}, 0.0, 0.5, chunk=chunk)
    bench.until(source.finished.is_set)
    assert time.monotonic() - begun < 30.0  # answer_timeout is 60 s
    assert np.isfinite(turns[0].user_motion).all(axis=1).nonzero()[0].tolist() == list(range(25))  # held for 0.25 s
    assert np.isfinite(turns[1].user_motion).all(axis=1).nonzero()[0].tolist() == [0, *range(5, 25)]


def test_every_activation_plays_from_the_beginning_as_a_new_stream(bench, recording):
    turns, segmenter, source = play(bench, recording, 0.0)
    streams = bench.listen(AudioChunk, "user/audio", qos.audio())
    bench.until(source.finished.is_set)
    source.trigger_deactivate()
    segmenter.trigger_deactivate()
    got = bench.listen(Turn, "turns", qos.turns())
    for node in (segmenter, source):
        node.trigger_activate()
    bench.until(lambda: len(got) >= 3)
    # Numbers go on: nobody takes the new conversation's first turn for the old one's.
    again = [turn(message) for message in got[-3:]]
    assert [each.number for each in again] == [3, 4, 5]
    assert streams[-1].stream_id == 2
    for a, b in zip(again, turns, strict=True):
        np.testing.assert_array_equal(a.user_speech, b.user_speech)


def test_the_source_waits_for_somebody_to_hear_it(bench, recording):
    source = bench.add(AudioSource, start_delay=0.0, **recording)
    got = bench.listen(AudioChunk, "user/audio", qos.audio())
    bench.bring_up(source)
    bench.connected(source._audio["user"])
    assert not got  # the agent's audio has no subscriber yet
    bench.listen(AudioChunk, "agent/audio", qos.audio())
    bench.until(lambda: got)
    assert got[0].sample_index == 0


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"recording": "/none.wav"}, "/none.wav"),
        ({"recording": ""}, "recording"),
        ({"speed": 2.0}, "publish_clock"),
        ({"publish_clock": True, "use_sim_time": True}, "use_sim_time"),
        ({"user_motion": "/none.npz"}, "/none.npz"),
    ],
)
def test_a_source_that_cannot_play_says_why_and_can_be_mended(bench, recording, parameters, reason):
    source = bench.add(AudioSource, **(recording | parameters))
    source.trigger_configure()
    assert reason in source.fault
    assert source.phase == "unconfigured"


def chunks(start_ns, samples, rate=16000, size=320):
    return [
        audio_message(start_ns + first * 10**9 // rate, first, rate, samples[first : first + size])
        for first in range(0, len(samples), size)
    ]


def test_the_segmenter_counts_what_is_lost_and_fills_it_with_silence(bench):
    segmenter = bench.add(TurnSegmenter)
    out = {role: bench.probe.create_publisher(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")}
    got = bench.listen(Turn, "turns", qos.turns())
    bench.bring_up(segmenter)
    for publisher in out.values():
        bench.connected(publisher)
    bench.connected(segmenter._output)
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 16000 * 2).astype(np.float32)
    for index, (user, agent) in enumerate(zip(chunks(10**18, samples), chunks(10**18, samples), strict=True)):
        if index not in (10, 11):
            out["user"].publish(user)
        out["agent"].publish(agent)
        bench.executor.spin_once(timeout_sec=0.01)
    bench.until(lambda: got)
    first = turn(got[0])
    assert (first.lost_user, first.lost_agent) == (640, 0)
    assert not first.user_speech[3200:3840].any()
    np.testing.assert_array_equal(first.agent_speech, samples[:16000])


def test_the_segmenter_refuses_nonsense_and_goes_on(bench):
    segmenter = bench.add(TurnSegmenter)
    publisher = bench.probe.create_publisher(AudioChunk, "user/audio", qos.audio())
    bench.bring_up(segmenter)
    bench.connected(publisher)
    publisher.publish(AudioChunk(sample_rate=0, channels=1))
    publisher.publish(audio_message(0, 0, 16000, np.zeros(320)))
    bench.until(lambda: segmenter.builder.counters.audio_chunks)
    assert segmenter.statistics.counted("user/audio rejected") == 1


def test_the_segmenter_says_when_its_turns_are_not_the_models(bench):
    segmenter = bench.add(TurnSegmenter, turn_seconds=2.0)
    publisher = bench.probe.create_publisher(StreamInfo, "stream_info", qos.latched())
    publisher.publish(StreamInfo(turn_duration=1.0, mode="reactive", model="m"))
    bench.bring_up(segmenter)
    bench.until(lambda: segmenter._disagreement)
    assert "turn_seconds" in segmenter._disagreement
    publisher.publish(StreamInfo(turn_duration=2.0, mode="reactive", model="m"))
    bench.until(lambda: segmenter._disagreement is None)


def test_the_segmenter_says_when_it_plans_by_another_lead_than_the_inference(bench):
    segmenter = bench.add(TurnSegmenter, mode="anticipatory")
    publisher = bench.probe.create_publisher(StreamInfo, "stream_info", qos.latched())
    publisher.publish(StreamInfo(turn_duration=1.0, mode="anticipatory", planning_lead=0.4, model="m"))
    bench.bring_up(segmenter)
    bench.until(lambda: segmenter._disagreement)
    assert "'planning_lead' is 0.24 here, but 0.4" in segmenter._disagreement
    publisher.publish(StreamInfo(turn_duration=1.0, mode="anticipatory", planning_lead=0.24, model="m"))
    bench.until(lambda: segmenter._disagreement is None)


def test_the_sink_gives_out_late_by_the_latched_delay_and_writes_it_down(bench, tmp_path):
    info = bench.probe.create_publisher(StreamInfo, "stream_info", qos.latched())
    info.publish(StreamInfo(playback_delay=0.5))  # before the sink exists
    ticks = bench.probe.create_publisher(Clock, "/clock", 10)
    sink = bench.add(AudioSink, use_sim_time=True, file=str(tmp_path / "out" / "agent.wav"))
    out = bench.listen(AudioChunk, "agent/audio_out", qos.audio())
    publisher = bench.probe.create_publisher(AudioChunk, "agent/audio", qos.audio())
    bench.bring_up(sink)
    bench.until(lambda: sink._delay_ns is not None)
    for end in (publisher, sink._output, ticks):
        bench.connected(end)
    samples = (np.random.default_rng(2).integers(-(2**14), 2**14, 3200) / 2**15).astype(np.float32)
    start = 1000 * 10**9
    for message in chunks(start, samples):
        publisher.publish(message)
    bench.until(lambda: sink.statistics.counted("agent/audio") == 10)
    shown = []
    for step in range(40):
        now = start + 490_000_000 + step * 20_000_000
        tick = Clock()
        tick.clock.sec, tick.clock.nanosec = divmod(now, 10**9)
        ticks.publish(tick)
        bench.until(lambda now=now: sink.now_ns() == now)
        bench.executor.spin_once(timeout_sec=0.02)
        shown += [now] * (len(out) - len(shown))
        if len(out) == 10:
            break
    bench.until(lambda: len(out) == 10)
    for message, moment in zip(out, shown, strict=False):
        assert moment >= to_ns(message.header.stamp) - 10_000_000
    assert [to_ns(m.header.stamp) - start for m in out] == [500_000_000 + k * 20_000_000 for k in range(10)]
    assert [m.sample_index for m in out] == list(range(0, 3200, 320))
    sink.trigger_deactivate()
    written, rate = soundfile.read(tmp_path / "out" / "agent.wav", dtype="float32")
    assert rate == 16000
    np.testing.assert_array_equal(written, samples)


def test_the_sink_counts_what_comes_too_late_and_what_is_lost(bench):
    sink = bench.add(AudioSink, playback_delay=0.1)
    out = bench.listen(AudioChunk, "agent/audio_out", qos.audio())
    publisher = bench.probe.create_publisher(AudioChunk, "agent/audio", qos.audio())
    bench.bring_up(sink)
    bench.connected(publisher)
    bench.connected(sink._output)
    old = sink.now_ns() - 10 * 10**9
    publisher.publish(audio_message(old, 0, 16000, np.zeros(320)))
    publisher.publish(audio_message(old + 40_000_000, 640, 16000, np.zeros(320)))
    bench.until(lambda: len(out) == 2)
    assert sink.statistics.counted("underruns") == 2
    assert sink.statistics.counted("samples lost") == 320


def test_the_sink_holds_back_no_more_than_half_a_minute(bench):
    sink = bench.add(AudioSink)  # nobody says the delay
    publisher = bench.probe.create_publisher(AudioChunk, "agent/audio", qos.audio())
    bench.bring_up(sink)
    bench.connected(publisher)
    for second in range(60):
        publisher.publish(audio_message(second * 10**9, second * 16000, 16000, np.zeros(16000)))
        bench.until(lambda second=second: sink.statistics.counted("agent/audio") > second)
    assert len(sink._held) <= 31
    assert sink.statistics.counted("chunks dropped") == 29


def test_user_motion_reaches_the_turn(bench):
    segmenter = bench.add(TurnSegmenter)
    publisher = bench.probe.create_publisher(FlameMotion, "user/motion", qos.motion())
    voice = {role: bench.probe.create_publisher(AudioChunk, f"{role}/audio", qos.audio()) for role in ("user", "agent")}
    got = bench.listen(Turn, "turns", qos.turns())
    bench.bring_up(segmenter)
    for end in (publisher, *voice.values(), segmenter._output):
        bench.connected(end)
    frames = np.random.default_rng(3).normal(size=(25, 56)).astype(np.float32) * 0.1
    frames[:, :53] = np.nan  # a head tracker
    publisher.publish(motion_message(10**18, 25.0, frames))
    bench.until(lambda: segmenter.builder.counters.motion_frames == 25)
    for user, agent in zip(*[chunks(10**18, np.full(17600, 0.1, np.float32))] * 2, strict=True):
        voice["user"].publish(user)
        voice["agent"].publish(agent)
        bench.executor.spin_once(timeout_sec=0.01)
    bench.until(lambda: got)
    made = turn(got[0]).user_motion
    assert np.isnan(made[:, :53]).all()
    np.testing.assert_allclose(made[:, 53:], frames[:, 53:], atol=1e-6)
