"""Several people, real topics: who speaks is the user and is looked at, and a bag gives the same choices again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("webrtcvad", reason="needs pip install 'timar_ros[live]'")

from geometry_msgs.msg import Point, PointStamped, PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32, String
from std_srvs.srv import Trigger
from support.ros_bench import Bench
from support.sim_time import SimTime

from timar_ros.audio.active_speaker import ActiveSpeaker, PartnerChoice
from timar_ros.bags.bag_files import BagReader
from timar_ros.bags.bag_messages import stamp_ns
from timar_ros.data.audio_files import load_conversation
from timar_ros.msg import AudioChunk, FlameMotion
from timar_ros.nodes.partner_selector import PartnerSelector, _place_of
from timar_ros.nodes.recorder import Recorder
from timar_ros.nodes.retarget import Retarget
from timar_ros.retarget import load_profile
from timar_ros.retarget.gaze import direction
from timar_ros.ros import messages, qos

RATE = 16000
CHUNK = RATE // 10
PLACES = {"anna": (1.5, 1.0, 1.3), "bert": (1.5, -1.0, 1.1), "cleo": (2.0, 0.0, 1.6)}
HEAD = (0.0, 0.0, 1.2)


@pytest.fixture
def bench(ros_domain):
    with Bench() as bench:
        yield bench


def loudest(voice: np.ndarray, seconds: float) -> np.ndarray:
    """The loudest stretch of a voice."""
    width = round(seconds * 10)
    power = np.square(voice[: len(voice) // CHUNK * CHUNK]).reshape(-1, CHUNK).sum(axis=1)
    begin = int(np.argmax(np.convolve(power, np.ones(width), "valid")))
    return voice[begin * CHUNK : (begin + width) * CHUNK]


@pytest.fixture(scope="module")
def meeting(repository: Path) -> dict[str, np.ndarray]:
    """Anna and Bert talk to each other, overlapping; Cleo says a word, at last a sentence. Voices leak."""
    voice = load_conversation(str(repository / "samples" / "conversation.flac"))[0]
    talk = loudest(voice, 2.0)
    clean = {name: np.zeros(9 * RATE, np.float32) for name in PLACES}
    for name, at, seconds in (
        ("anna", 0.2, 2.0),
        ("cleo", 1.2, 0.4),  # no answer to anybody
        ("bert", 2.0, 2.0),  # begins before Anna has ended
        ("anna", 4.3, 2.0),
        ("cleo", 6.6, 2.0),
    ):
        begin = round(at * RATE)
        clean[name][begin : begin + round(seconds * RATE)] += talk[: round(seconds * RATE)]
    noise = np.random.default_rng(0).normal(0.0, 1e-4, (3, 9 * RATE)).astype(np.float32)
    everybody = np.sum(list(clean.values()), axis=0)
    return {name: 0.9 * clean[name] + 0.1 * everybody + noise[i] for i, name in enumerate(PLACES)}


def chosen(meeting: dict[str, np.ndarray], start: float) -> list[tuple[float, str]]:
    """The choices without ROS."""
    choice = PartnerChoice(ActiveSpeaker())
    for begin in range(0, 9 * RATE, CHUNK):
        for name, samples in meeting.items():
            choice.push(name, start + begin / RATE, samples[begin : begin + CHUNK])
    return list(choice.changes)


def test_the_robot_among_people_looks_at_who_speaks(bench, meeting, tmp_path: Path) -> None:
    """Two people talk to each other, a third joins: the head turns from one to the other, nods go on, the jaw rests."""
    resets: list[int] = []
    bench.probe.create_service(
        Trigger, "timar_inference/reset", lambda _, r: (resets.append(1), Trigger.Response(success=True), r)[1]
    )
    partners = bench.listen(String, "partner_id", qos.latched())
    heard = bench.listen(AudioChunk, "user/audio", qos.audio())
    states = bench.listen(JointState, "joint_commands", qos.commands())
    mouth = bench.listen(Float32, "mouth", qos.commands())
    voices = {n: bench.probe.create_publisher(AudioChunk, f"/humans/voices/{n}/audio", qos.audio()) for n in PLACES}
    faces = {n: bench.probe.create_publisher(PointStamped, f"/humans/faces/{n}/place", qos.commands()) for n in PLACES}
    motion = bench.probe.create_publisher(FlameMotion, "agent/motion", qos.motion())
    selector = bench.add(
        PartnerSelector, use_sim_time=True, candidates=list(PLACES), place_pattern="/humans/faces/{id}/place"
    )
    retarget = bench.add(Retarget, use_sim_time=True, wait_for_state=0.0, output="forward", gaze_origin=list(HEAD))
    topics = [publisher.topic_name for publisher in voices.values()] + ["gaze/target", "partner_id"]
    recorder = bench.add(Recorder, path=str(tmp_path / "bag"), topics=topics)
    bench.bring_up(selector, retarget, recorder)
    for publisher in voices.values():
        bench.connected(publisher, 2)
    for publisher in (*faces.values(), motion):
        bench.connected(publisher)
    bench.until(selector._reset.service_is_ready)
    time = SimTime(bench, lambda: retarget.driver.seen_ns, step=0.05)
    time.run(0.1)
    start = time.now

    pitch = 0.08 * np.sin(2 * np.pi * 1.5 * np.arange(300) / 25)
    frames = np.zeros((300, 56))
    frames[:, 53] = pitch
    motion.publish(messages.motion_message(start, 25.0, frames))
    bench.until(lambda: retarget.statistics.counted("agent/motion"))
    for name, (x, y, z) in PLACES.items():
        place = PointStamped(point=Point(x=x, y=y, z=z))
        place.header.frame_id = "base_link"
        faces[name].publish(place)
    bench.until(lambda: all(person.place for person in selector._people.values()))
    for sent in range(0, 9 * RATE, CHUNK):
        for name, publisher in voices.items():
            samples = meeting[name][sent : sent + CHUNK]
            at = start + round(sent * 1e9 / RATE)
            publisher.publish(messages.audio_message(at, sent, RATE, samples))
            topic = publisher.topic_name
            bench.until(lambda t=topic, n=sent: selector.statistics.counted(t) > n // CHUNK)
        time.run(0.1)

    time.run(1.0)

    names = [name for _, name in selector.choice.changes]
    assert names == ["anna", "bert", "anna", "cleo"]
    # Of 0.1 s of sound, the last sample is heard when all of it comes; a decision waits for the slowest channel.
    assert list(selector.choice.changes) == chosen(meeting, start * 1e-9)
    at = [decided - start * 1e-9 for decided, _ in selector.choice.changes]
    for decided, floor in zip(at, (0.2, 2.2, 4.3, 6.6), strict=True):
        assert 0.3 < decided - floor < 1.0
    bench.until(lambda: len(partners) == 4 and len(resets) == 3)
    streams = sorted({chunk.stream_id for chunk in heard})
    assert len(streams) == 4  # each partner is a stream of its own
    for stream in streams:
        index = [chunk.sample_index for chunk in heard if chunk.stream_id == stream]
        assert index == list(range(0, CHUNK * len(index), CHUNK))

    bench.until(lambda: messages.to_ns(states[-1].header.stamp) >= time.now - 20_000_000)
    profile = load_profile("timar_head")
    limits, names = profile.limits(), list(states[0].name)
    stamps = np.array([messages.to_ns(state.header.stamp) - start for state in states]) * 1e-9
    moved = np.array([state.position for state in states])
    assert (moved >= limits["lower"] - 1e-9).all()
    assert (moved <= limits["upper"] + 1e-9).all()
    speed = np.diff(moved, axis=0) / np.diff(stamps)[:, None]
    assert (np.abs(speed) <= limits["velocity"] + 1e-6).all()
    yaw, nod = moved[:, names.index("neck_yaw")], moved[:, names.index("neck_pitch")]
    for decided, name in zip(at, ("anna", "bert", "anna", "cleo"), strict=True):
        there = (stamps > decided + 1.5) & (stamps < decided + 2.0)
        left, down = direction(PLACES[name], HEAD)
        assert yaw[there] == pytest.approx(left, abs=0.01), name
        assert nod[there].max() - down == pytest.approx(0.08, abs=0.02)
        assert nod[there].min() - down == pytest.approx(-0.08, abs=0.02)
    assert max(message.data for message in mouth) == 0.0

    recorder.trigger_deactivate()
    with BagReader(tmp_path / "bag") as bag:
        again = PartnerChoice(ActiveSpeaker())
        for topic, _, message in bag.messages({publisher.topic_name for publisher in voices.values()}):
            samples = np.asarray(message.data, np.float32)
            again.push(topic.split("/")[3], stamp_ns(message.header.stamp) * 1e-9, samples, int(message.sample_rate))
        targets = [message for _, _, message in bag.messages({"/gaze/target"})]
    assert list(again.changes) == list(selector.choice.changes)
    assert {(t.point.x, t.point.y, t.point.z) for t in targets} == set(PLACES.values())


def test_people_who_have_gone_cost_nothing(bench) -> None:
    selector = bench.add(PartnerSelector, candidates=["anna"], reset_service="")
    bench.bring_up(selector)
    timers = len(list(selector.timers))
    for number in range(5):
        selector._on_tracked(SimpleNamespace(ids=["anna", f"guest{number}"]))
    assert set(selector._people) == {"anna", "guest4"}
    assert len(list(selector.timers)) == timers + 1


def test_a_place_is_read_by_the_messages_fields() -> None:
    pose = PoseStamped()
    pose.pose.position.x = 2.0
    assert _place_of(pose).x == 2.0
    assert _place_of(SimpleNamespace(vector=Point(y=1.0))).y == 1.0
    with pytest.raises(messages.MessageError, match="Float32 has no point"):
        _place_of(Float32())


def test_a_target_in_another_frame_is_refused_and_said(bench) -> None:
    retarget = bench.add(Retarget, gaze_frame="torso")
    target = bench.probe.create_publisher(PointStamped, "gaze/target", qos.commands())
    bench.bring_up(retarget)
    bench.connected(target)
    wrong = PointStamped(point=Point(x=1.0))
    wrong.header.frame_id = "camera"
    target.publish(wrong)
    bench.until(lambda: retarget.statistics.counted("gaze/target rejected"))
