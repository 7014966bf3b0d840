"""SROS2's policy file grants every node and command what it has on the network, and nothing more."""

from __future__ import annotations

import fnmatch
import itertools
import xml.etree.ElementTree as ET
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("torch")

import rclpy
from support.bag_factory import write_bag
from support.ros_bench import Bench

from timar_ros.data.audio_files import write_audio
from timar_ros.graph.lifecycle import LifecycleClient
from timar_ros.graph.observer import Observer
from timar_ros.graph.parameter_reference import NODES, node_class
from timar_ros.graph.security_policy import GRAPH, NODE_NAMES, RIGHTS, TYPE_SERVICES, main, policy
from timar_ros.graph.status import GraphWatcher
from timar_ros.msg import AudioChunk, StreamInfo
from timar_ros.ros import qos

NAMESPACE = "/robot1"
NUMBERS = itertools.count()
KINDS = ("publish", "subscribe", "reply", "request")

UNSEEN = {
    ("audio_bridge", "subscribe"): {"audio", "audio_info", "/humans/voices/*"},
    ("head_bridge", "subscribe"): {"/tf", "/tf_static"},
    ("face_tracker", "subscribe"): {"image_raw"},
    ("partner_selector", "subscribe"): {"/humans/voices/*", "/humans/faces/*", "/tf", "/tf_static"},
    ("avatar_bridge", "publish"): {"agent/facs"},
    ("recorder", "subscribe"): {"*"},
    ("status", "request"): {"*/get_state"},
}
"""What needs types of packages that are not installed everywhere, or stands for whatever is there."""


def granted(text: str) -> dict[str, dict[str, set[str]]]:
    """By node and kind of right: full names and patterns, as SROS2 resolves them."""
    found = {}
    for enclave in ET.fromstring(text.encode()).iter("enclave"):
        path = enclave.get("path").rpartition("/")[2]
        (profile,) = enclave.iter("profile")
        place, node = profile.get("ns"), profile.get("node")
        rights = found[path] = {kind: set() for kind in KINDS}
        for group in profile:
            ((kind, allowed),) = group.attrib.items()
            assert allowed == "ALLOW"
            rights[kind] |= {resolved(item.text, place, node) for item in group}
    return found


def resolved(name: str, place: str, node: str) -> str:
    place = place.rstrip("/")
    if name.startswith("/"):
        return name
    return f"{place}/{node}{name[1:]}" if name.startswith("~") else f"{place}/{name}"


def endpoints(asker, name: str) -> dict[str, set[str]]:
    """What a node really has."""
    ask = (
        asker.get_publisher_names_and_types_by_node,
        asker.get_subscriber_names_and_types_by_node,
        asker.get_service_names_and_types_by_node,
        asker.get_client_names_and_types_by_node,
    )
    return {kind: {each for each, _ in call(name, NAMESPACE)} for kind, call in zip(KINDS, ask, strict=True)}


def own_endpoints(node) -> dict[str, set[str]]:
    """What a node's own lists hold; the services of its lifecycle are in none of them."""
    return {
        "publish": {each.topic_name for each in node.publishers},
        "subscribe": {each.topic_name for each in node.subscriptions},
        "reply": {node.resolve_service_name(each.srv_name) for each in node.services},
        "request": {node.resolve_service_name(each.srv_name) for each in node.clients},
    }


def seen(bench, node) -> dict[str, set[str]]:
    """What the network shows of a node, once it shows all that the node itself lists: that takes a moment."""

    def whole():
        real, own = endpoints(bench.probe, node.get_name()), own_endpoints(node)
        return real if all(own[kind] <= real[kind] for kind in KINDS) else None

    return bench.until(whole)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    write_audio(folder / "a.wav", np.zeros(16000, np.float32))
    write_bag(folder / "bag", seconds=2.0)
    return folder


def variants(name: str, files) -> list[dict]:
    """Parameters by which a node opens all that it can open."""
    audio = {"user": str(files / "a.wav"), "agent": str(files / "a.wav")}
    return {
        "audio_source": [
            {**audio, "answered_by": "trajectory", "publish_clock": True, "speed": 0.0},
            {**audio, "answered_by": "turns", "publish_clock": True, "speed": 0.0},
        ],
        "bag_player": [
            {"path": str(files / "bag"), "speed": 0.0, "answered_by": "trajectory"},
            {"path": str(files / "bag"), "speed": 0.0, "answered_by": "turns"},
        ],
        "timar_inference": [{"model": "random-mini", "device": "cpu", "warm_up_turns": 0}],
        "retarget": [{"output": "forward", "joint_states": True}, {"output": "pose"}, {"output": "trajectory"}],
        "speech": [{"engine": "command", "command": "cat"}],
        "live_page": [{"recordings": str(files / "live")}],
        "partner_selector": [{"candidates": ["anna"], "place_frame": "voice_{id}"}],
        "face_tracker": [{"input": "topic", "blendshapes": True}],
    }.get(name, [{}])


def union(parts) -> dict[str, set[str]]:
    parts = list(parts)
    return {kind: set().union(*(part[kind] for part in parts)) for kind in KINDS}


def compare(name: str, real: dict[str, set[str]]) -> None:
    """Nothing is missing, and nothing is granted that is not there, but for what cannot be seen here."""
    allowed = granted(policy(NAMESPACE))[name]
    for kind in KINDS:
        missing = {each for each in real[kind] if not any(fnmatch.fnmatch(each, right) for right in allowed[kind])}
        assert not missing, f"{name} may not {kind} {sorted(missing)}"
        unseen = {resolved(each, NAMESPACE, name) for each in UNSEEN.get((name, kind), ())}
        unseen |= {f"{NAMESPACE}/{NODE_NAMES.get(name, name)}/{service}" for service in TYPE_SERVICES}
        # A node of the graph reads it with simulated time, a command with the graph's.
        beyond = allowed[kind] - real[kind] - unseen - {"/clock"}
        assert not beyond, f"{name} is allowed to {kind} what it does not have: {sorted(beyond)}"


@pytest.mark.parametrize("name", NODES)
def test_a_node_may_do_what_it_does_and_nothing_more(ros_domain, files, name, monkeypatch):
    # A stand-in for mediapipe, which need not be there: what the node has on the network does not depend on it.
    stand_in = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr("timar_ros.nodes.face_tracker.FaceLandmarker", lambda _path: stand_in)
    found = []
    for parameters in variants(name, files):
        for simulated in (False, True) if not parameters.get("publish_clock") and name != "bag_player" else (False,):
            more = {"path": str(files / f"new-{next(NUMBERS)}")} if name == "recorder" else {}
            with Bench() as bench:
                node = bench.add(node_class(name), NAMESPACE, **parameters, **more, use_sim_time=simulated)
                for step in (node.trigger_configure, node.trigger_activate):
                    found.append(seen(bench, node))
                    step()
                    assert node.fault is None, node.fault
                found.append(seen(bench, node))
                if simulated:
                    break
    compare(name, union(found))


def test_commands_may_do_what_they_do(ros_domain):
    with Bench() as bench:
        observer = Observer(NAMESPACE, context=bench.context)
        clients = [LifecycleClient(observer, f"{NAMESPACE}/{node}") for node in GRAPH]
        from timar_ros.graph.health import Health

        Health(NAMESPACE).listen(observer)
        compare("observer", seen(bench, observer))
        assert len(clients) == len(GRAPH)
        observer.destroy_node()
        status = rclpy.create_node("status", namespace=NAMESPACE, context=bench.context)
        watcher = GraphWatcher(status, bench.executor, NAMESPACE, ["retarget", "audio_sink"])
        watcher.look(0.2)
        compare("status", seen(bench, status))
        status.destroy_node()


def test_a_program_that_speaks_may_do_what_it_does(ros_domain):
    from timar_ros.ros import Head

    with Bench() as bench:
        info = bench.probe.create_publisher(StreamInfo, f"{NAMESPACE}/stream_info", qos.latched())
        bench.listen(AudioChunk, f"{NAMESPACE}/agent/audio", qos.audio())
        info.publish(StreamInfo(mode="reactive", turn_duration=1.0, sample_rate=16000, motion_rate=25.0))
        with Head(NAMESPACE) as head:
            assert head._node.get_name() == NODE_NAMES["say"]
            compare("say", seen(bench, head._node))


def test_there_is_an_enclave_for_every_node(repository):
    assert set(NODES) <= set(RIGHTS)
    assert {field.name for field in fields(RIGHTS["status"])} == {"publish", "subscribe", "serve", "call", "lifecycle"}


def test_the_file_is_what_the_code_says(repository):
    text = (repository / "config" / "security" / "policy.xml").read_text()
    assert text == policy(), "write it anew: python -m timar_ros.graph.security_policy > config/security/policy.xml"


def test_a_namespace_and_a_controllers_topic_are_put_in(capsys):
    assert main(["--namespace", "robot1", "--command-topic", "/head_controller/joint_trajectory"]) == 0
    rights = granted(capsys.readouterr().out)["retarget"]
    assert "/head_controller/joint_trajectory" in rights["publish"]
    assert "/robot1/joint_trajectory" not in rights["publish"]
    assert "/head_controller/get_parameters" in rights["request"]
    assert "/robot1/retarget/set_style" in rights["reply"]
    assert "/diagnostics" in rights["publish"]
