"""Rolling mode through real nodes: who plays the agent's voice learns how late each of its streams is heard."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("torch")

from rosgraph_msgs.msg import Clock
from support.ros_bench import Bench, hold_up
from support.tiny_models import tiny_model

from timar_ros.model import save_timar
from timar_ros.msg import AudioChunk, FlameMotion, StreamInfo, Turn, VoiceTiming
from timar_ros.nodes.audio_sink import AudioSink
from timar_ros.nodes.timar_inference import TimarInference
from timar_ros.nodes.turn_segmenter import TurnSegmenter
from timar_ros.ros import qos
from timar_ros.ros.messages import audio_message, motion, to_ns, to_stamp, turn, turn_message
from timar_ros.streaming.offline import resolve_model
from timar_ros.streaming.pipeline import Pipeline
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.turns.turn_types import TurnInput

NS = 10**9
START = 1000 * NS
CHUNK = 320
STEP = 20_000_000
HOP, MARGIN, LOOK = 0.2, 0.12, 0.4
DELAY = round((HOP + MARGIN) * NS)
VOICE = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)


@pytest.fixture
def bench(ros_domain):
    with Bench() as bench:
        yield bench


class Time:
    """The simulated clock of a test."""

    def __init__(self, bench: Bench, *nodes) -> None:
        self.bench, self.nodes = bench, nodes
        self.publisher = bench.probe.create_publisher(Clock, "/clock", 10)
        bench.connected(self.publisher, len(nodes))

    def set(self, now_ns: int) -> None:
        """Let it be this time in all nodes."""
        self.publisher.publish(Clock(clock=to_stamp(now_ns)))
        self.bench.until(lambda: all(node.now_ns() == now_ns for node in self.nodes))


def utterance(stamp_ns, count, stream_id, *, end=False):
    """An utterance in chunks of 20 ms."""
    return [
        audio_message(
            stamp_ns + k * STEP,
            k * CHUNK,
            16000,
            VOICE[k * CHUNK : (k + 1) * CHUNK],
            stream_id=stream_id,
            end=end and k == count - 1,
        )
        for k in range(count)
    ]


@pytest.fixture
def sink(bench):
    """A sink in rolling mode, its input, its output as (stream, stamp [ns], given out at [ns]), and its clock."""
    info = bench.probe.create_publisher(StreamInfo, "stream_info", qos.latched())
    info.publish(StreamInfo(mode="rolling", hop=HOP, hop_margin=MARGIN, playback_delay=HOP + MARGIN))
    node = bench.add(AudioSink, use_sim_time=True)
    given = []
    voice = bench.probe.create_publisher(AudioChunk, "agent/audio", qos.audio())
    timing = bench.probe.create_publisher(VoiceTiming, "agent/voice_timing", qos.commands())
    bench.bring_up(node)
    bench.until(lambda: node._delay_ns == DELAY)
    bench.probe.create_subscription(
        AudioChunk,
        "agent/audio_out",
        lambda m: given.append((m.stream_id, to_ns(m.header.stamp), node.now_ns())),
        qos.audio(),
    )
    for end in (voice, timing, node._output):
        bench.connected(end)
    clock = Time(bench, node)
    clock.set(START - NS // 2)
    return node, voice, timing, given, clock


def tell(timing, stream_id, delay):
    timing.publish(VoiceTiming(stream_id=stream_id, delay=delay))


def play(bench, clock, given, count, first_ns, last_ns):
    """Let time pass in steps of 20 ms; each step's audio is seen before the next."""
    for now in range(first_ns, last_ns + 1, STEP):
        clock.set(now)
        for _ in range(4):
            bench.executor.spin_once(timeout_sec=0.01)
    bench.until(lambda: len(given) == count)


@pytest.mark.parametrize(("delay", "late_ns"), [(0.0, 0), (HOP + MARGIN, DELAY)])
@pytest.mark.parametrize("told_first", [True, False])
def test_the_sink_plays_each_stream_as_late_as_it_is_told(bench, sink, delay, late_ns, told_first):
    """Ahead: at its stamps. Not ahead: hop and margin later. The word may come before the voice or after it."""
    node, voice, timing, given, clock = sink
    if told_first:
        tell(timing, 5, delay)
        bench.until(lambda: 5 in node._delays)
    for message in utterance(START, 10, 5):
        voice.publish(message)
    bench.until(lambda: node.statistics.counted("agent/audio") == 10)
    if not told_first:
        tell(timing, 5, delay)
        bench.until(lambda: 5 in node._delays)
    play(bench, clock, given, 10, START - 3 * STEP, START + late_ns + 12 * STEP)
    assert [stamp - START for _, stamp, _ in given] == [late_ns + k * STEP for k in range(10)]
    assert all(at >= stamp - STEP // 2 for _, stamp, at in given)
    assert all(at <= stamp + 4 * STEP for _, stamp, at in given)
    assert node.statistics.counted("underruns") == node.statistics.counted("samples lost") == 0


def test_a_stream_that_nobody_tells_of_waits_and_is_then_heard_late(bench, sink):
    node, voice, _, given, clock = sink
    clock.set(START + STEP)
    for message in utterance(START, 3, 6):
        voice.publish(message)
    bench.until(lambda: len(node._undelayed) == 3)
    assert not given  # its stamp is over: had it been taken for ahead, it would be out
    now = START + STEP
    while 6 not in node._delays:
        now += STEP // 5  # slower than the waiting, which goes by the wall's time
        assert now < START + DELAY - STEP, "it never stopped waiting"
        clock.set(now)
        bench.executor.spin_once(timeout_sec=0.02)
    assert not given
    play(bench, clock, given, 3, now, START + DELAY + 6 * STEP)
    assert [stamp - START for _, stamp, _ in given] == [DELAY + k * STEP for k in range(3)]
    assert node.statistics.counted("samples lost") == 0


def test_a_late_utterance_and_one_ahead_do_not_hold_each_other_up(bench, sink):
    """A streaming synthesizer right after a microphone: two streams under way at once, neither loses a sample."""
    node, voice, timing, given, clock = sink
    tell(timing, 1, HOP + MARGIN)
    tell(timing, 2, 0.0)
    bench.until(lambda: {1, 2} <= set(node._delays))
    for message in [*utterance(START, 5, 1, end=True), *utterance(START + 5 * STEP + DELAY, 5, 2, end=True)]:
        voice.publish(message)
    bench.until(lambda: node.statistics.counted("agent/audio") == 10)
    play(bench, clock, given, 10, START, START + DELAY + 12 * STEP)
    assert [stream for stream, _, _ in given] == [1] * 5 + [2] * 5
    stamps = [stamp for _, stamp, _ in given]
    assert stamps == [START + DELAY + k * STEP for k in range(10)]
    assert node.statistics.counted("samples lost") == node.statistics.counted("duplicates") == 0


@pytest.fixture
def segmenter(bench):
    """A segmenter in rolling mode, publishers of both voices, what it gives, and its clock."""
    node = bench.add(
        TurnSegmenter, use_sim_time=True, mode="rolling", hop=HOP, hop_margin=MARGIN, look_ahead=LOOK, max_lateness=0.1
    )
    told = bench.listen(VoiceTiming, "agent/voice_timing", qos.commands())
    hops = bench.listen(Turn, "turns", qos.turns())
    voices = {r: bench.probe.create_publisher(AudioChunk, f"{r}/audio", qos.audio()) for r in ("user", "agent")}
    bench.bring_up(node)
    for end in (*voices.values(), node._voices, node._output):
        bench.connected(end)
    clock = Time(bench, node)
    return node, voices, told, hops, clock


def converse(bench, segmenter, agent, steps):
    """A microphone hears the user for so many steps of 20 ms.

    :param agent: the agent's messages with the step in which each is published.
    """
    node, voices, _, _, clock = segmenter
    rng = np.random.default_rng(1)
    sent = {"user": 0, "agent": 0}
    for step in range(steps):
        clock.set(START + step * STEP)
        for message in [message for at, message in agent if at == step]:
            voices["agent"].publish(message)
            sent["agent"] += 1
        if step:
            samples = rng.uniform(-0.5, 0.5, CHUNK).astype(np.float32)
            at = START + (step - 1) * STEP
            voices["user"].publish(audio_message(at, (step - 1) * CHUNK, 16000, samples))
            sent["user"] += 1
        bench.until(lambda: all(node.statistics.counted(f"{r}/audio") == count for r, count in sent.items()))


def test_the_segmenter_says_of_a_burst_that_it_is_ahead(bench, segmenter):
    """A synthesizer's second of speech comes at once, in 50 chunks of 20 ms, half a second before it is said."""
    node, _, told, hops, _ = segmenter
    spoken = utterance(START + 40 * STEP, 50, 3, end=True)
    converse(bench, segmenter, [(15, message) for message in spoken], 110)
    bench.until(lambda: len(hops) >= 10)
    assert [(m.stream_id, m.delay, to_ns(m.header.stamp)) for m in told] == [(3, 0.0, START + 40 * STEP)]
    got = [turn(message) for message in hops]
    assert all(each.agent_ahead is not None and len(each.agent_ahead) == round(LOOK * 16000) for each in got)
    said = np.concatenate([each.agent_speech for each in got])
    first = (START + 40 * STEP - got[0].stamp_ns) * 16000 // NS
    count = min(len(said) - first, 16000)
    assert count >= 10000
    np.testing.assert_array_equal(said[first : first + count], VOICE[:count])
    counters = node.builder.counters
    assert (counters.lost_agent, counters.lost_user, counters.late_chunks, counters.foreign_clocks) == (0, 0, 0, 0)


def test_the_segmenter_says_of_a_live_voice_that_it_is_heard_late(bench, segmenter):
    """Each chunk comes when its last sample was said, as from a microphone."""
    node, _, told, hops, _ = segmenter
    spoken = utterance(START + 20 * STEP, 50, 4)
    converse(bench, segmenter, [(21 + k, message) for k, message in enumerate(spoken)], 70)
    bench.until(lambda: len(hops) >= 5)
    assert [m.stream_id for m in told] == [4]
    assert told[0].delay == pytest.approx(HOP + MARGIN)
    got = [turn(message) for message in hops]
    during = [each for each in got if each.stamp_ns + round(HOP * NS) > START + 21 * STEP]
    assert during
    assert [each.agent_ahead for each in during] == [None] * len(during)
    counters = node.builder.counters
    assert (counters.lost_agent, counters.lost_user, counters.late_chunks, counters.foreign_clocks) == (0, 0, 0, 0)


def a_hop(number):
    """A hop with the agent's speech ahead."""
    rng = np.random.default_rng(number)
    user, agent = rng.uniform(-0.5, 0.5, (2, round(HOP * 16000))).astype(np.float32)
    ahead = rng.uniform(-0.5, 0.5, round(LOOK * 16000)).astype(np.float32)
    return TurnInput(number, START + number * round(HOP * NS), HOP, user, agent, None, agent_ahead=ahead)


def test_hops_that_wait_too_long_are_made_up_from_the_plan(bench, tmp_path):
    """A machine that falls behind shows what an earlier hop planned, and says so; a replay can do the same."""
    save_timar(tiny_model(3), tmp_path / "tiny", name="tiny")
    node = bench.add(TimarInference, model=str(tmp_path / "tiny"), mode="rolling", seed=2)
    got = bench.listen(FlameMotion, "agent/motion", qos.motion())
    said = bench.probe.create_publisher(Turn, "turns", qos.turns())
    bench.bring_up(node)
    bench.connected(said)
    began, let_go = hold_up(node)
    hops = [a_hop(number) for number in range(5)]
    said.publish(turn_message(hops[0], 25.0))
    bench.until(began.is_set)
    for each in hops[1:]:
        said.publish(turn_message(each, 25.0))
    bench.until(lambda: node.statistics.counted("turns dropped") == 2)
    let_go.set()
    bench.until(lambda: len(got) == 5)
    assert [(each.turn, each.from_plan) for each in got] == [(0, False), (1, True), (2, True), (3, False), (4, False)]
    assert node.statistics.counted("hops from the plan") == 2
    alone = Pipeline(resolve_model(str(tmp_path / "tiny")), PipelineOptions(mode="rolling", seed=2))
    for message, each in zip(got, hops, strict=True):
        wanted = alone.skip(each) if message.from_plan else alone.step(each)
        assert wanted is not None
        np.testing.assert_array_equal(motion(message).frames, wanted.frames)
        assert to_ns(message.header.stamp) == each.stamp_ns + DELAY
