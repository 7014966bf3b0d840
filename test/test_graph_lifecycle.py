"""Transitions of other nodes when answers or requests get lost on the way."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from support.ros_bench import Bench

from timar_ros.graph import lifecycle
from timar_ros.graph.lifecycle import LifecycleClient


class Managed(LifecycleNode):
    """Counts what it was asked, and loses what it is told to lose."""

    def __init__(self, **options):
        super().__init__("managed", **options)
        self.configured = 0
        self.result = TransitionCallbackReturn.SUCCESS

    def on_configure(self, state):
        self.configured += 1
        return self.result

    def end(self):
        """Nothing to end; the bench asks for it."""

    def lose(self, service, number):
        """Let the first ``number`` answers of a service never leave."""
        left, send = [number], service.send_response

        def losing(response, header):
            if left[0] > 0:
                left[0] -= 1
            else:
                send(response, header)

        service.send_response = losing


@pytest.fixture
def world(ros_domain, monkeypatch):
    monkeypatch.setattr(lifecycle, "RETRY_AFTER", 0.05)
    with Bench() as bench:
        node = Managed(context=bench.context)
        bench.nodes.append(node)
        bench.executor.add_node(node)
        yield bench, node, LifecycleClient(bench.probe, "/managed")


def outcome(bench, client, transition):
    client.begin(transition)
    answers = []

    def known():
        answers.append(client.poll())
        return answers[-1] is not None

    bench.until(known)
    return answers[-1]


def test_transitions_one_after_the_other(world):
    bench, node, client = world
    for transition in ("configure", "activate", "deactivate", "activate", "deactivate", "cleanup", "configure"):
        assert outcome(bench, client, transition) is True
    assert node.configured == 2


def test_a_lost_answer_is_found_out_and_the_transition_made_once(world):
    bench, node, client = world
    node.lose(node._service_change_state, 1)
    assert outcome(bench, client, "configure") is True
    assert node.configured == 1
    node.lose(node._service_change_state, 1)
    node.lose(node._service_get_state, 2)
    assert outcome(bench, client, "activate") is True


def test_a_refusal_is_not_asked_twice(world):
    bench, node, client = world
    node.result = TransitionCallbackReturn.FAILURE
    assert outcome(bench, client, "configure") is False
    assert node.configured == 1


def test_a_refusal_whose_answer_is_lost_comes_out_all_the_same(world):
    bench, node, client = world
    node.result = TransitionCallbackReturn.FAILURE
    node.lose(node._service_change_state, 1)
    assert outcome(bench, client, "configure") is False
    assert node.configured == 2


def test_nobody_there_is_no_answer(ros_domain):
    with Bench() as bench:
        client = LifecycleClient(bench.probe, "/nobody")
        client.begin("configure")
        for _ in range(5):
            bench.executor.spin_once(timeout_sec=0.01)
            assert client.poll() is None
