"""The robot's own voice and a partner who speaks over it: the detector, and the node with its topics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve

from timar_ros.streaming.echo_detector import BLOCK, EchoDetector

RATE = 16000
SECONDS, DELAY = 9.0, 0.6
PARTNER = slice(round(6.5 * RATE), round(8.0 * RATE))


def speech_like(seed: int, count: int) -> np.ndarray:
    """Noise in syllables, four a second."""
    noise = np.random.default_rng(seed).standard_normal(count)
    return 0.1 * noise * (0.2 + np.abs(np.sin(2 * np.pi * 2.0 * np.arange(count) / RATE + seed)))


def scene(with_partner: bool) -> tuple[np.ndarray, np.ndarray]:
    """What is played, and what a microphone hears: the own voice 20 dB above the partner's, in a room."""
    own = speech_like(1, round(SECONDS * RATE))
    rng = np.random.default_rng(7)
    room = np.zeros(round((DELAY + 0.25) * RATE))
    tail = np.arange(len(room) - round(DELAY * RATE))
    room[round(DELAY * RATE) :] = 0.05 * rng.standard_normal(len(tail)) * np.exp(-tail / (0.04 * RATE))
    room[round(DELAY * RATE)] = 0.8
    heard = fftconvolve(own, room)[: len(own)] + 1e-4 * rng.standard_normal(len(own))
    if with_partner:
        voice = speech_like(5, PARTNER.stop - PARTNER.start)
        heard[PARTNER] += voice * 0.1 * heard.std() / voice.std()
    return own.astype(np.float32), heard.astype(np.float32)


def blocks(*signals: np.ndarray):
    return zip(*(s[: len(s) // BLOCK * BLOCK].reshape(-1, BLOCK) for s in signals), strict=True)


@pytest.mark.parametrize("with_partner", [True, False])
def test_a_partner_20_db_below_the_own_voice_is_found_and_nobody_else(with_partner):
    detector = EchoDetector()
    judged = [detector.judge(played, heard) for played, heard in blocks(*scene(with_partner))]
    at = np.arange(len(judged)) * BLOCK / RATE
    assert detector.delay == pytest.approx(DELAY, abs=0.07)
    begins = [time for time, each in zip(at, judged, strict=True) if each.barge_in]
    if with_partner:
        [begin] = begins
        assert 6.8 - BLOCK / RATE <= begin < 7.5
    else:
        assert not begins
    alone = [each for time, each in zip(at, judged, strict=True) if 4.0 < time < 6.4]
    assert np.mean([each.own for each in alone]) > 0.95
    assert np.mean([each.partner for each in alone]) <= 0.01


def test_a_partner_alone_is_no_barge_in():
    detector = EchoDetector()
    voice = 0.2 * speech_like(3, 4 * RATE)
    voice[: 2 * RATE] = 1e-4 * np.random.default_rng(0).standard_normal(2 * RATE)
    silence = np.zeros(4 * RATE)
    judged = [detector.judge(played, heard) for played, heard in blocks(silence, voice)]
    assert not any(each.own or each.barge_in for each in judged)
    assert np.mean([each.partner for each in judged[70:]]) > 0.5
    assert not any(each.partner for each in judged[10:60])


def test_the_node_mutes_the_own_voice_and_a_barge_in_interrupts(ros_domain):
    pytest.importorskip("rclpy")
    from std_msgs.msg import Header
    from std_srvs.srv import Trigger
    from support.ros_bench import Bench

    from timar_ros.msg import AudioChunk
    from timar_ros.nodes.barge_in import BargeIn
    from timar_ros.ros import qos
    from timar_ros.ros.messages import audio_message, to_ns

    start, calls = 1_700_000_000 * 10**9, []
    own, heard = scene(True)
    with Bench() as bench:
        node = bench.add(BargeIn, cancel=True)
        out = bench.listen(AudioChunk, "user/audio", qos.audio())
        events = bench.listen(Header, "barge_in", qos.commands())

        def answer(_, response):
            calls.append(1)
            return response

        bench.probe.create_service(Trigger, "timar_inference/cancel", answer)
        topics = ("agent/audio_out", "microphone/audio")
        ways = [bench.probe.create_publisher(AudioChunk, topic, qos.audio()) for topic in topics]
        bench.bring_up(node)
        for end in (*ways, node._output, node._events):
            bench.connected(end)
        bench.until(node._service.service_is_ready)
        step = 800  # 50 ms
        for index in range(0, len(own), step):
            for way, topic, samples in zip(ways, topics, (own, heard), strict=True):
                stamp_ns = start + round(index * 1e9 / RATE)
                way.publish(audio_message(stamp_ns, index, RATE, samples[index : index + step], stream_id=1))
                bench.until(lambda t=topic, sent=index // step + 1: node.statistics.counted(t) == sent)
        bench.until(lambda: len(out) == len(own) // BLOCK and calls)
        [event] = events
        assert to_ns(event.stamp) - start == pytest.approx(6.7e9, abs=0.4e9)
        assert calls == [1]
        passed = np.concatenate([np.asarray(message.data) for message in out])
        assert [m.sample_index for m in out] == list(range(0, len(passed), BLOCK))
        alone, partner = slice(4 * RATE, round(6.4 * RATE)), slice(7 * RATE, round(7.8 * RATE))
        assert (passed[alone] == 0.0).mean() > 0.95
        assert (passed[partner] != 0.0).mean() > 0.9
