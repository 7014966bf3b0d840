"""What nodes can rely on: parameters, transitions that report, endpoints that end with their phase, diagnostics."""

from __future__ import annotations

import gc
import math

import psutil
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String
from support.ros_bench import Bench

from timar_ros.errors import UserError
from timar_ros.ros import qos
from timar_ros.ros.base import OK, WARN, ManagedNode, Parameter
from timar_ros.ros.diagnostics import Statistics
from timar_ros.ros.messages import MessageError


class Echo(ManagedNode):
    """Says what it hears; can be told to fail in any hook."""

    PARAMETERS = (
        Parameter("gain", 1.0, "a number", 0.0, 2.0, dynamic=True),
        Parameter("count", 3, "an integer", 1, 5),
        Parameter("kind", "a", "a choice", choices=("a", "b")),
        Parameter("list", [""], "a list"),
        Parameter("even", 2, "an even number", check=lambda v: None if v % 2 == 0 else "must be even"),
    )

    def __init__(self, **options):
        super().__init__("echo", **options)
        self.failing: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.changes: list[tuple[str, object]] = []

    def _called(self, hook):
        self.calls.append(hook)
        if hook in self.failing:
            raise self.failing[hook]

    def configure(self):
        self.out = self.publish_on(String, "out", qos.turns())
        self.subscribe(String, "in", self.take, qos.turns())
        self._called("configure")

    def activate(self):
        self._called("activate")

    def deactivate(self):
        self._called("deactivate")

    def cleanup(self):
        self._called("cleanup")

    def changed(self, name, value):
        self.changes.append((name, value))

    def take(self, message):
        if message.data == "bad":
            raise MessageError("data is bad")
        self.out.publish(message)

    def diagnose(self):
        return WARN, "so so", {"own": "1"}


@pytest.fixture
def bench(ros_domain):
    with Bench() as bench:
        yield bench


def ask(bench, service_type, name, request):
    client = bench.probe.create_client(service_type, name)
    bench.until(client.service_is_ready)
    future = client.call_async(request)
    bench.until(future.done)
    return future.result()


def change(bench, transition):
    return ask(
        bench, ChangeState, "/echo/change_state", ChangeState.Request(transition=Transition(id=transition))
    ).success


def state(bench):
    return ask(bench, GetState, "/echo/get_state", GetState.Request()).current_state.label


# Parameters


def test_an_integer_serves_where_a_float_is_meant(bench):
    assert bench.add(Echo, gain=2).value("gain") == 2.0


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("gain", 7.0, "gain"),
        ("gain", math.nan, "gain"),
        ("gain", "loud", "must be a number"),
        ("count", 9, "count"),
        ("kind", "c", "one of 'a', 'b'"),
        ("even", 3, "must be even"),
        ("list", ["a=b=c"], None),
        ("expected_subscribers", ["out"], "turns=2"),
    ],
)
def test_parameters_are_refused_at_the_start_with_a_reason(bench, name, value, reason):
    if reason is None:
        assert bench.add(Echo, **{name: value}).value(name) == value
    else:
        with pytest.raises(UserError, match=reason) as caught:
            bench.add(Echo, **{name: value})
        assert "\n" not in str(caught.value)


def set_parameter(bench, name, value):
    request = SetParameters.Request(parameters=[RosParameter(name, value=value).to_parameter_msg()])
    return ask(bench, SetParameters, "/echo/set_parameters", request).results[0]


def test_dynamic_parameters_change_at_any_time_and_others_only_while_unconfigured(bench):
    node = bench.add(Echo)
    assert set_parameter(bench, "kind", "b").successful
    bench.bring_up(node)
    result = set_parameter(bench, "kind", "a")
    assert not result.successful
    assert "unconfigured" in result.reason
    assert set_parameter(bench, "gain", 1).successful
    assert node.changes == [("gain", 1.0)]
    result = set_parameter(bench, "gain", -1.0)
    assert not result.successful
    assert "gain" in result.reason
    assert node.value("gain") == 1.0
    node.end()
    assert node.changes == [("gain", 1.0)]


def test_descriptors_tell_range_and_choices(bench):
    bench.add(Echo)
    request = DescribeParameters.Request(names=["gain", "count", "kind"])
    gain, count, kind = ask(bench, DescribeParameters, "/echo/describe_parameters", request).descriptors
    assert gain.description == "a number"
    assert (gain.floating_point_range[0].from_value, gain.floating_point_range[0].to_value) == (0.0, 2.0)
    assert (count.integer_range[0].from_value, count.integer_range[0].to_value) == (1, 5)
    assert "'a', 'b'" in kind.additional_constraints


# Transitions


@pytest.mark.parametrize("error", [UserError("no such file"), RuntimeError("a fault of ours")])
def test_a_failed_configure_says_why_and_can_be_tried_again(bench, error):
    node = bench.add(Echo)
    node.failing["configure"] = error
    assert not change(bench, Transition.TRANSITION_CONFIGURE)
    assert state(bench) == "unconfigured"
    assert str(error) in node.fault
    assert "cleanup" in node.calls
    assert "out" not in [name for name, _ in node.get_publisher_names_and_types_by_node("echo", "/")]
    node.failing.clear()
    assert change(bench, Transition.TRANSITION_CONFIGURE)
    assert change(bench, Transition.TRANSITION_ACTIVATE)
    assert node.fault is None


def test_a_failed_activate_leaves_the_node_inactive_and_rolled_back(bench):
    node = bench.add(Echo)
    assert change(bench, Transition.TRANSITION_CONFIGURE)
    node.failing["activate"] = UserError("not now")
    assert not change(bench, Transition.TRANSITION_ACTIVATE)
    assert state(bench) == "inactive"
    assert node.calls[-1] == "deactivate"
    node.failing.clear()
    assert change(bench, Transition.TRANSITION_ACTIVATE)


@pytest.mark.parametrize(("hook", "transitions"), [
    ("deactivate", [Transition.TRANSITION_DEACTIVATE]),
    ("cleanup", [Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP]),
])  # fmt: skip
def test_a_fault_on_the_way_down_ends_unconfigured_and_not_in_a_dead_node(bench, hook, transitions):
    node = bench.add(Echo)
    bench.bring_up(node)
    node.failing[hook] = RuntimeError("oh")
    for transition in transitions:
        done = change(bench, transition)
    assert not done
    assert state(bench) == "unconfigured"
    node.failing.clear()
    assert change(bench, Transition.TRANSITION_CONFIGURE)


def test_a_transition_that_the_state_does_not_allow_is_refused_and_the_node_lives(bench):
    bench.add(Echo)
    assert not change(bench, Transition.TRANSITION_ACTIVATE)
    assert not change(bench, Transition.TRANSITION_CLEANUP)
    assert state(bench) == "unconfigured"
    assert change(bench, Transition.TRANSITION_CONFIGURE)


def test_it_goes_up_and_down_again_and_again(bench):
    node = bench.add(Echo)
    for _ in range(3):
        for transition in (
            Transition.TRANSITION_CONFIGURE,
            Transition.TRANSITION_ACTIVATE,
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
        ):
            assert change(bench, transition)
    assert len(list(node.publishers)) == len(list(bench.add(Echo, namespace="fresh").publishers))


# Inputs and outputs


def test_it_hears_and_speaks_only_while_active(bench):
    node = bench.add(Echo)
    got = bench.listen(String, "out", qos.turns())
    heard = bench.listen(String, "in", qos.turns())
    said = bench.probe.create_publisher(String, "in", qos.turns())
    node.trigger_configure()
    bench.connected(said, 2)
    said.publish(String(data="early"))
    bench.until(lambda: heard)
    bench.executor.spin_once(timeout_sec=0.05)  # the node's turn, if the probe came first
    node.trigger_activate()
    bench.connected(node.out)
    said.publish(String(data="now"))
    bench.until(lambda: got)
    assert [message.data for message in got] == ["now"]


def test_a_bad_message_is_counted_and_the_node_lives(bench):
    node = bench.add(Echo)
    bench.bring_up(node)
    got = bench.listen(String, "out", qos.turns())
    said = bench.probe.create_publisher(String, "in", qos.turns())
    bench.connected(said)
    bench.connected(node.out)
    for word in ("bad", "good"):
        said.publish(String(data=word))
    bench.until(lambda: got)
    assert got[0].data == "good"
    assert node.statistics.counted("in rejected") == 1


def test_activation_waits_for_expected_subscribers(bench):
    node = bench.add(Echo, expected_subscribers=["out=1"], expected_subscribers_timeout=0.2)
    assert change(bench, Transition.TRANSITION_CONFIGURE)
    assert not change(bench, Transition.TRANSITION_ACTIVATE)
    assert "out has 0 of 1 expected subscribers" in node.fault
    bench.listen(String, "out", qos.turns())
    bench.connected(node.out)
    assert change(bench, Transition.TRANSITION_ACTIVATE)


def test_qos_can_be_overridden_by_parameters(bench):
    overrides = {
        "qos_overrides./out.publisher.reliability": "best_effort",
        "qos_overrides./out.publisher.depth": 77,
        "qos_overrides./in.subscription.reliability": "best_effort",
    }
    node = bench.add(Echo, **overrides)
    for _ in range(2):  # also when it is configured again
        assert change(bench, Transition.TRANSITION_CONFIGURE)
        profile = node.out.qos_profile
        assert (profile.reliability, profile.depth) == (ReliabilityPolicy.BEST_EFFORT, 77)
        (info,) = node.get_subscriptions_info_by_topic("/in")
        assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert change(bench, Transition.TRANSITION_CLEANUP)
    wrong = bench.add(Echo, namespace="wrong", **{"qos_overrides./wrong/out.publisher.reliability": "perhaps"})
    wrong.trigger_configure()
    assert "perhaps" in wrong.fault


def test_a_publisher_that_cannot_connect_is_told_of(bench):
    node = bench.add(Echo)
    bench.bring_up(node)
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    bench.probe.create_publisher(String, "in", best_effort)
    bench.until(lambda: node.statistics.counted("in incompatible publishers") == 1)


def test_profiles_say_what_the_streams_need():
    assert (qos.audio().depth, qos.audio().reliability) == (3000, ReliabilityPolicy.RELIABLE)
    assert (qos.latched().depth, qos.latched().durability) == (1, DurabilityPolicy.TRANSIENT_LOCAL)
    for profile in (qos.motion(), qos.turns(), qos.commands(), qos.diagnostics()):
        assert isinstance(profile, QoSProfile)
        assert (profile.reliability, profile.durability) == (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)


# Diagnostics


def statuses(got):
    return [status for array in got for status in array.status if status.name == "echo: node"]


def test_diagnostics_tell_state_fault_and_figures(bench):
    got = bench.listen(DiagnosticArray, "/diagnostics", qos.diagnostics())
    node = bench.add(Echo, quiet_after=0.5)
    node.failing["configure"] = UserError("no model")
    assert not change(bench, Transition.TRANSITION_CONFIGURE)
    bench.until(lambda: any(s.level == DiagnosticStatus.ERROR and "no model" in s.message for s in statuses(got)))
    node.failing.clear()
    bench.bring_up(node)
    node.statistics.latency("work", 0.004)
    bench.until(lambda: any(s.level == WARN and "waiting for in" in s.message for s in statuses(got)))
    rows = {item.key: item.value for item in statuses(got)[-1].values}
    assert rows["state"] == "active"
    assert rows["own"] == "1"
    assert rows["in"] == "0"
    assert rows["work p50 [ms]"] == rows["work max [ms]"] == "4.00"


def test_silence_is_no_fault_and_is_logged_once(bench, capfd):
    got = bench.listen(DiagnosticArray, "/diagnostics", qos.diagnostics())
    source = bench.probe.create_publisher(String, "in", 10)
    node = bench.add(Echo, quiet_after=2.2)
    node.diagnose = lambda: (OK, "so so", {})
    bench.bring_up(node)
    bench.until(lambda: sum("waiting for in" in s.message for s in statuses(got)) >= 3)
    # Nobody has spoken yet: that is how every conversation begins.
    assert {s.level for s in statuses(got) if "waiting" in s.message} == {OK}
    assert statuses(got)[-1].hardware_id == ""
    bench.until(source.get_subscription_count)
    source.publish(String(data="x"))
    bench.until(lambda: statuses(got)[-1].message == "so so")
    bench.until(lambda: statuses(got)[-1].message == "waiting for in")
    assert statuses(got)[-1].level == WARN
    assert capfd.readouterr().err.count("waiting for in") == 2


def test_a_number_keeps_its_type_when_an_integer_is_given(bench):
    node = bench.add(Echo, gain=2)
    assert node.get_parameter("gain").type_ == RosParameter.Type.DOUBLE
    client = ask(
        bench,
        SetParameters,
        "/echo/set_parameters",
        SetParameters.Request(parameters=[RosParameter("gain", value=1).to_parameter_msg()]),
    )
    assert client.results[0].successful
    assert node.get_parameter("gain").type_ == RosParameter.Type.DOUBLE
    assert node.get_parameter("gain").value == 1.0


def test_rates_are_over_the_time_between_two_reports():
    made = Statistics()
    made.tick("a")
    assert "a rate [Hz]" not in made.rows(100.0)
    for _ in range(10):
        made.tick("a")
    assert made.rows(102.0)["a rate [Hz]"] == "5.00"
    assert made.rows(103.0)["a rate [Hz]"] == "0.00"
    assert made.counted("a") == 11


def test_percentiles_hold_a_window_and_the_maximum_everything():
    made = Statistics()
    made.latency("x", 9.0)
    for _ in range(2000):
        made.latency("x", 0.001)
    rows = made.rows(0.0)
    assert (rows["x p50 [ms]"], rows["x p95 [ms]"], rows["x max [ms]"]) == ("1.00", "1.00", "9000.00")


def test_a_destroyed_node_takes_its_participant_with_it(ros_domain):
    """FastDDS finds the first 32 participants of a host alone, so none may wait for the garbage collector."""
    with Bench():  # imports and log files, once
        pass
    process = psutil.Process()
    before = process.num_threads()
    gc.disable()
    try:
        with Bench() as bench:
            bench.bring_up(bench.add(Echo))
            assert process.num_threads() > before
        assert process.num_threads() == before
    finally:
        gc.enable()
