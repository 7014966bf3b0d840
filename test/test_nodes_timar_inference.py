"""Node timar_inference: the pipeline's bytes, namespaces, overload, restart, both modes, and what can go wrong."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("torch")

import torch
from support.ros_bench import Bench, hold_up
from support.tiny_models import tiny_model

from timar_ros.graph.advice import advice
from timar_ros.model import save_timar
from timar_ros.msg import FlameMotion, StreamInfo, Turn
from timar_ros.node_parts.inference_parameters import PARAMETERS
from timar_ros.nodes.timar_inference import TimarInference
from timar_ros.ros import qos
from timar_ros.ros.messages import motion, to_ns, turn_message
from timar_ros.streaming.pipeline import Pipeline
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.turns.turn_builder import TurnInput

START = 1_700_000_000 * 10**9


@pytest.fixture
def bench(ros_domain):
    with Bench() as bench:
        yield bench


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_timar(tiny_model(3), folder, name="tiny")
    return str(folder)


def a_turn(number, seed=0, planned=False):
    rng = np.random.default_rng(100 * seed + number)
    user, agent = rng.uniform(-0.5, 0.5, (2, 16000)).astype(np.float32)
    frames = rng.normal(size=(25, 56)).astype(np.float32) * 0.1
    if planned:
        return TurnInput(number, START + number * 10**9, 1.0, np.zeros(16000, np.float32), agent, None, planned=True)
    return TurnInput(number, START + number * 10**9, 1.0, user, agent, frames)


class Talk:
    """A conversation with the node, from outside."""

    def __init__(self, bench, namespace=""):
        self.bench = bench
        self.got = bench.listen(FlameMotion, f"{namespace}/agent/motion".lstrip("/"), qos.motion())
        self.infos = bench.listen(StreamInfo, f"{namespace}/stream_info".lstrip("/"), qos.latched())
        self.said = bench.probe.create_publisher(Turn, f"{namespace}/turns".lstrip("/"), qos.turns())

    def connect(self):
        self.bench.connected(self.said)
        self.bench.until(lambda: self.infos)
        return self

    def say(self, *turns):
        for each in turns:
            self.said.publish(turn_message(each, 25.0))

    def hear(self, count):
        self.bench.until(lambda: len(self.got) >= count)
        return [motion(message) for message in self.got]


def offline(model, turns, **options):
    """What the pipeline gives without ROS."""
    from timar_ros.streaming.offline import resolve_model

    pipeline = Pipeline(resolve_model(model), PipelineOptions(**options))
    made = []
    for each in turns:
        answer = pipeline.step(each)
        if answer is not None:
            made.append(answer)
        pipeline.idle()
    return made


def same(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.turn == other.number
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.speaking, other.speaking)


def test_its_motion_is_the_pipelines_to_the_bit_and_stamped_by_the_delay(bench, model):
    node = bench.add(TimarInference, model=model, seed=5, playback_delay=1.5)
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    turns = [a_turn(number) for number in range(3)]
    for count, each in enumerate(turns, 1):
        talk.say(each)
        talk.hear(count)
    same(talk.hear(3), offline(model, turns, seed=5))
    for message, each in zip(talk.got, turns, strict=True):
        assert to_ns(message.header.stamp) == each.stamp_ns + 1_500_000_000
    info = talk.infos[-1]
    assert (info.model, info.mode, info.seed, info.turn_duration) == ("tiny", "reactive", 5, 1.0)
    assert info.playback_delay == pytest.approx(1.5)
    assert len(info.model_sha256) == 64


def test_the_delay_found_at_warm_up_leaves_time_to_answer(bench, model):
    node = bench.add(TimarInference, model=model)
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    assert talk.infos[-1].playback_delay >= 1.15 - 1e-6


def test_one_process_serves_several_namespaces_and_none_hears_the_other(bench, model):
    node = bench.add(TimarInference, model=model, namespaces=["left", "right/head"])
    left, right = Talk(bench, "left"), Talk(bench, "right/head")
    bench.bring_up(node)
    left.connect()
    right.connect()
    for number in range(2):
        left.say(a_turn(number, seed=1))
        right.say(a_turn(number, seed=2))
        left.hear(number + 1)
        right.hear(number + 1)
    for talk, seed in ((left, 1), (right, 2)):
        expected = offline(model, [a_turn(number, seed) for number in range(2)])
        for one, other in zip(talk.hear(2), expected, strict=True):
            np.testing.assert_allclose(one.frames, other.frames, atol=1e-4)  # a batch rounds otherwise than one alone
    assert np.abs(left.hear(2)[0].frames - right.hear(2)[0].frames).max() > 0.01


def test_anticipatory_motion_comes_before_the_turn_and_history_knows_what_happened(bench, model):
    node = bench.add(TimarInference, model=model, mode="anticipatory")
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    turns = [a_turn(number, planned=planned) for number in range(3) for planned in (True, False)]
    idle, idled = node.pipeline.idle, threading.Event()
    node.pipeline.idle = lambda: (idle(), idled.set())
    for each in turns:
        idled.clear()
        talk.say(each)
        talk.hear(each.number + 1)
        bench.until(idled.is_set)
    same(talk.hear(3), offline(model, turns, mode="anticipatory"))
    assert [to_ns(m.header.stamp) for m in talk.got] == [START + number * 10**9 for number in range(3)]


def test_when_it_falls_behind_the_oldest_turn_is_dropped_and_counted(bench, model):
    node = bench.add(TimarInference, model=model, queue_depth=1)
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    began, let_go = hold_up(node)
    talk.say(a_turn(0))
    bench.until(began.is_set)
    talk.say(a_turn(1), a_turn(2), a_turn(3))
    bench.until(lambda: node.statistics.counted("turns dropped") == 2)
    level, message, rows = node.diagnose()
    assert (level, rows["queue"]) == (b"\x01", "1")
    assert "2 turns dropped" in message
    let_go.set()
    assert [each.turn for each in talk.hear(2)] == [0, 3]


def test_a_turn_that_fails_is_logged_and_the_conversation_goes_on(bench, model):
    node = bench.add(TimarInference, model=model)
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    full = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has a total capacity …")
    process, failures = node.pipeline.process, [full]

    def fragile(turns):
        if failures:
            raise failures.pop()
        return process(turns)

    node.pipeline.process = fragile
    talk.say(a_turn(0))
    bench.until(lambda: node.statistics.counted("turns failed"))
    level, message, _ = node.diagnose()
    assert (level, message) == (
        b"\x02",
        "1 turns failed (see the log): CUDA out of memory. Tried to allocate 20.00 MiB.",
    )
    assert "smaller model" in advice(message)
    talk.say(a_turn(1))
    assert talk.hear(1)[0].turn == 1


def test_every_answered_turn_has_a_line_of_times(bench, model, tmp_path):
    node = bench.add(TimarInference, model=model, latency_log=str(tmp_path / "logs" / "turns.csv"))
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    talk.say(a_turn(0), a_turn(1))
    talk.hear(2)
    node.trigger_deactivate()
    head, *lines = (tmp_path / "logs" / "turns.csv").read_text().splitlines()
    assert head == "namespace,turn,received,begun,model,published"
    for number, line in enumerate(lines):
        _, turn, received, begun, took, published = line.split(",")
        assert int(turn) == number
        assert float(received) <= float(begun) <= float(begun) + float(took) <= float(published) + 1e-6
    assert len(lines) == 2


def test_turns_of_another_length_are_refused_with_a_hint(bench, model):
    node = bench.add(TimarInference, model=model)
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    short = TurnInput(0, START, 0.4, *np.zeros((2, 6400), np.float32), None)
    talk.say(short, a_turn(1))
    assert talk.hear(1)[0].turn == 1
    assert node.statistics.counted("turns rejected") == 1


def test_a_conversation_outlives_the_process(ros_domain, model, tmp_path):
    state = str(tmp_path / "talk.npz")
    turns = [a_turn(number) for number in range(4)]
    got = []
    for part in (turns[:2], turns[2:]):
        with Bench() as bench:
            node = bench.add(TimarInference, model=model, state_file=state)
            talk = Talk(bench)
            bench.bring_up(node)
            talk.connect()
            for count, each in enumerate(part, 1):
                talk.say(each)
                talk.hear(count)
            got += talk.hear(2)
    same(got, offline(model, turns))


def test_a_conversation_outlives_deactivation_but_not_cleanup(bench, model):
    node = bench.add(TimarInference, model=model)
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    turns = [a_turn(number) for number in range(3)]
    talk.say(turns[0])
    talk.hear(1)
    node.trigger_deactivate()
    node.trigger_activate()
    talk.say(turns[1])
    same(talk.hear(2), offline(model, turns[:2]))
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.model is None
    bench.bring_up(node)
    bench.connected(talk.said)
    talk.say(turns[0])
    np.testing.assert_array_equal(talk.hear(3)[2].frames, offline(model, turns[:1])[0].frames)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"model": "/no/such/model"}, "/no/such/model"),
        ({"context_seconds": 99.0}, "context_seconds"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_a_configure_that_fails_says_why_in_one_line_and_works_once_mended(bench, model, parameters, reason):
    from rclpy.parameter import Parameter

    node = bench.add(TimarInference, **({"model": model} | parameters))
    node.trigger_configure()
    assert reason in node.fault
    assert "\n" not in node.fault
    assert node.phase == "unconfigured"
    defaults = {parameter.name: parameter.default for parameter in PARAMETERS} | {"model": model, "device": "cpu"}
    (result,) = node.set_parameters([Parameter(name, value=defaults[name]) for name in parameters])
    assert result.successful
    bench.bring_up(node)


def test_a_damaged_memory_says_which_file_to_remove(bench, model, tmp_path):
    state = tmp_path / "talk.npz"
    state.write_bytes(b"not a memory")
    node = bench.add(TimarInference, model=model, state_file=str(state))
    node.trigger_configure()
    assert str(state) in node.fault


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_torch_or_transformers_it_says_what_to_install(bench, model, monkeypatch, missing):
    node = bench.add(TimarInference, model=model)
    monkeypatch.setitem(sys.modules, missing, None)
    node.trigger_configure()
    assert missing in node.fault
    assert "pip install" in node.fault
    assert "\n" not in node.fault


def test_an_untrained_model_is_called_so(bench):
    node = bench.add(TimarInference, model="random-mini", warm_up_turns=0)
    talk = Talk(bench)
    bench.bring_up(node)
    talk.connect()
    assert not talk.infos[-1].trained
    assert "UNTRAINED" in node.diagnose()[1]
