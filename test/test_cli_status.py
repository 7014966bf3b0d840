"""`timar status`: what it finds out about a running graph, and its exit codes."""

from __future__ import annotations

import json
import os
import socket

import pytest

pytest.importorskip("rclpy")

from support.ros_bench import Bench

from timar_ros.cli.main import main
from timar_ros.errors import UserError
from timar_ros.graph.domain import LOCK_PORT, choose_domain, free_domain
from timar_ros.graph.status import GraphWatcher
from timar_ros.msg import StreamInfo
from timar_ros.nodes.audio_sink import AudioSink
from timar_ros.nodes.turn_segmenter import TurnSegmenter
from timar_ros.ros import qos

INFO = {"mode": "reactive", "turn_duration": 1.0, "model": "tiny", "trained": True, "playback_delay": 1.25}


@pytest.fixture
def bench(ros_domain):
    with Bench() as made:
        yield made


def look(bench, *expected, namespace="", patience=30.0):
    watcher = GraphWatcher(bench.probe, bench.executor, namespace, expected)
    return watcher.look(patience)


def levels(status):
    return {node.name: (node.state, node.level) for node in status.nodes}


def test_nodes_their_states_and_the_conversation(bench):
    sink, segmenter = bench.add(AudioSink, "robot1"), bench.add(TurnSegmenter, "robot1")
    publisher = bench.probe.create_publisher(StreamInfo, "/robot1/stream_info", qos.latched())
    publisher.publish(StreamInfo(**INFO))
    bench.bring_up(sink)
    bench.until(lambda: sink._delay_ns)
    status = look(bench, "audio_sink", "turn_segmenter", namespace="robot1")
    assert levels(status) == {"audio_sink": ("active", "OK"), "turn_segmenter": ("unconfigured", "WARN")}
    assert not status.fine
    bench.bring_up(segmenter)
    status = look(bench, "audio_sink", namespace="/robot1/")
    assert levels(status) == {"audio_sink": ("active", "OK"), "turn_segmenter": ("active", "OK")}
    assert status.fine
    talk = status.conversation
    assert talk is not None
    assert (talk.mode, talk.model, talk.trained, talk.playback_delay) == ("reactive", "tiny", True, 1.25)
    assert (talk.turns_answered, talk.turns_dropped) == (None, None)  # there is no timar_inference


def test_a_missing_node_is_named_and_other_namespaces_are_told(bench):
    bench.add(AudioSink, "robot2")
    status = look(bench, "retarget", patience=2.0)
    assert levels(status) == {"retarget": ("missing", "ERROR")}
    assert not status.fine
    assert status.elsewhere == ["/robot2"]
    assert status.conversation is None


def test_what_warns_is_told_with_what_to_do(bench):
    sink = bench.add(AudioSink)
    bench.bring_up(sink)
    (node,) = look(bench, "audio_sink").nodes
    assert (node.level, node.message) == ("WARN", "waiting for stream_info")
    assert "timar_inference" in node.advice


def test_two_of_one_name_are_an_error(bench):
    nodes = [bench.add(AudioSink), bench.add(AudioSink)]
    bench.bring_up(*nodes)
    (node,) = look(bench, "audio_sink").nodes
    assert (node.level, node.message.split(":")[0]) == ("ERROR", "2 nodes have this name")


def test_the_command_prints_json_and_ends_with_1(ros_domain, capsys):
    assert main(["status", "--patience", "0.5", "--only", "retarget", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["fine"], told["nodes"][0]["name"], told["conversation"]) == (False, "retarget", None)


def test_the_command_prints_one_table(ros_domain, capsys):
    assert main(["status", "--patience", "0.5", "--namespace", "robot1"]) == 1
    out = capsys.readouterr().out
    assert "timar status /robot1" in out
    assert out.count("missing") >= 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--patience", "0"], "patience"),
        (["--patience", "nan"], "patience"),
        (["--domain", "300"], "domain 300"),
        (["--without", "nobody"], "nobody"),
        (["--only", "retarget", "--without", "retarget"], "no node to look for"),
        (["--json", "--watch"], "exclude"),
    ],
)
def test_bad_arguments_are_one_line(ros_domain, capsys, arguments, named):
    assert main(["status", *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_the_domain_is_the_one_that_a_run_on_this_machine_holds(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    assert choose_domain(5) == 5
    monkeypatch.setattr("timar_ros.graph.domain.domains_in_use", list)
    assert choose_domain(None) == 0
    monkeypatch.setattr("timar_ros.graph.domain.domains_in_use", lambda: [7])
    assert choose_domain(None) == 7
    monkeypatch.setattr("timar_ros.graph.domain.domains_in_use", lambda: [7, 9])
    with pytest.raises(UserError, match="7, 9: give --domain"):
        choose_domain(None)
    monkeypatch.setenv("ROS_DOMAIN_ID", "eleven")
    with pytest.raises(UserError, match="eleven"):
        choose_domain(None)


def test_a_held_domain_is_found():
    from timar_ros.graph.domain import domains_in_use

    with free_domain() as domain:
        assert domain in domains_in_use()
        with socket.socket() as other, pytest.raises(OSError):
            other.bind(("127.0.0.1", LOCK_PORT + domain))
    assert os.environ.get("ROS_DOMAIN_ID") is None or os.environ["ROS_DOMAIN_ID"] != str(domain)
