"""Node `retarget`: from messages to commands, started from where the robot is, stopped softly."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float32, Float64MultiArray, Header
from std_srvs.srv import SetBool
from support.ros_bench import Bench
from support.sim_time import SimTime
from trajectory_msgs.msg import JointTrajectory

from timar_ros.msg import FlameMotion, StreamInfo
from timar_ros.node_parts.controller_parameter import FLAG, ControllerFlag
from timar_ros.node_parts.retarget_parameters import PARAMETERS
from timar_ros.nodes.retarget import Retarget
from timar_ros.retarget import RetargetOptions, load_profile
from timar_ros.ros import qos
from timar_ros.ros.base import WARN
from timar_ros.ros.joint_messages import joint_state_message
from timar_ros.ros.messages import motion_message, to_ns, to_stamp
from timar_ros.srv import SetStyle


@pytest.fixture
def bench(ros_domain):
    with Bench() as bench:
        yield bench


def nods(seconds: float, amplitude: float = 0.2) -> np.ndarray:
    """FLAME frames that nod once a second."""
    t = np.arange(round(25 * seconds)) / 25
    frames = np.zeros((len(t), 56))
    frames[:, 53] = amplitude * np.sin(2 * np.pi * t)
    frames[:, 50] = 0.15 + 0.1 * np.sin(6 * np.pi * t)
    return frames


class Scene:
    """The node in simulated time, with a publisher of motion and ears on all its outputs."""

    def __init__(self, bench: Bench, measured: dict[str, float] | None = None, **parameters) -> None:
        self.bench = bench
        self.trajectories = bench.listen(JointTrajectory, "joint_trajectory", qos.commands())
        self.states = bench.listen(JointState, "joint_commands", QoSProfile(depth=1000))
        self.forward = bench.listen(Float64MultiArray, "commands", qos.commands())
        self.poses = bench.listen(PoseStamped, "head_pose", qos.commands())
        self.mouth = bench.listen(Float32, "mouth", qos.commands())
        self.eyelids = bench.listen(Float32, "eyelids", qos.commands())
        self.motion = bench.probe.create_publisher(FlameMotion, "agent/motion", qos.motion())
        self.measured = bench.probe.create_publisher(JointState, "joint_states", qos.commands())
        self.gaze = bench.probe.create_publisher(Bool, "gaze/active", qos.commands())
        self.node = bench.add(Retarget, **{"wait_for_state": 0.0, "use_sim_time": True, **parameters})
        bench.bring_up(self.node)
        for publisher in (self.motion, self.measured, self.gaze):
            bench.connected(publisher)
        self.time = SimTime(bench, lambda: self.node.driver.seen_ns)
        self.time.run(0.1)

    def tell(self, publisher, message) -> None:
        """Publish, and wait until the node has heard it."""
        self.bench.tell(self.node, publisher, message)

    def send(self, frames: np.ndarray, ahead: float = 0.4) -> int:
        stamp = self.time.now + round(ahead * 1e9)
        self.tell(self.motion, motion_message(stamp, 25.0, frames))
        return stamp

    def settle(self) -> None:
        """Wait until what the node has sent has come."""
        self.time.until(lambda: self.states and to_ns(self.states[-1].header.stamp) >= self.time.now - 20_000_000)


def positions(messages, joint):
    return np.array([m.position[list(m.name).index(joint)] for m in messages])


def times(trajectory):
    start = to_ns(trajectory.header.stamp)
    return np.array([start + p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in trajectory.points])


def test_a_chunk_becomes_one_trajectory_that_ends_at_rest(bench):
    scene = Scene(bench)
    stamp = scene.send(nods(1.0))
    trajectory = bench.until(lambda: scene.trajectories)[0]
    assert list(trajectory.joint_names) == load_profile("timar_head").names
    moments = times(trajectory)
    assert (np.diff(moments) > 0).all()
    assert trajectory.points[0].time_from_start.nanosec > 0
    assert moments[-1] >= stamp + 1_000_000_000
    last = trajectory.points[-1]
    assert np.abs(last.velocities).max() == 0.0
    pitch = np.array([p.positions[1] for p in trajectory.points])
    wanted = 0.2 * np.sin(2 * np.pi * (moments - stamp) * 1e-9)
    inside = (moments > stamp + 350_000_000) & (moments < stamp + 900_000_000)
    assert np.abs(pitch - wanted)[inside].max() < 0.02


def test_commands_are_told_when_they_are_due(bench):
    scene = Scene(bench)
    stamp = scene.send(nods(1.0))
    scene.time.run(1.4)
    scene.settle()
    stamps = np.array([to_ns(m.header.stamp) for m in scene.states])
    assert (np.diff(stamps) == 10_000_000).all()
    pitch = positions(scene.states, "neck_pitch")
    wanted = 0.2 * np.sin(2 * np.pi * (stamps - stamp) * 1e-9)
    inside = (stamps > stamp + 350_000_000) & (stamps < stamp + 900_000_000)
    assert np.abs(pitch - wanted)[inside].max() < 0.02
    assert max(m.data for m in scene.mouth) > 0.3
    assert scene.eyelids and all(0.0 <= m.data <= 1.0 for m in scene.eyelids)


def test_it_starts_from_where_the_robot_is(bench):
    names = load_profile("tiago").names
    scene = Scene(bench, robot="tiago", wait_for_state=60.0)
    scene.time.run(0.2)
    assert not scene.states
    scene.tell(scene.measured, joint_state_message(scene.time.now, ["arm", *names], [9.0, 0.5, -0.3]))
    scene.time.until(lambda: scene.states)
    assert list(scene.states[0].position) == pytest.approx([0.5, -0.3], abs=1e-6)


def test_a_joint_state_may_be_in_parts_and_not_finite_at_first(bench):
    yaw, pitch = load_profile("nao").names
    scene = Scene(bench, robot="nao", wait_for_state=0.5)
    for name, position in ((yaw, math.nan), (pitch, math.nan), (pitch, 0.3)):
        scene.tell(scene.measured, JointState(name=[name], position=[position]))
    scene.time.run(1.0)
    assert not scene.states, "it started although the robot has not said where the yaw is"
    assert scene.node.diagnose()[:2] == (WARN, f"joint_states: positions are not finite: {yaw}")
    scene.tell(scene.measured, JointState(name=[yaw, pitch], position=[0.8, math.nan]))
    scene.time.until(lambda: scene.states)
    assert list(scene.states[0].position) == pytest.approx([0.8, 0.3], abs=1e-6)


def test_a_joint_that_is_never_told_is_taken_to_be_at_neutral_and_warned_of(bench):
    yaw, pitch = load_profile("nao").names
    scene = Scene(bench, robot="nao", wait_for_state=0.5)
    scene.tell(scene.measured, JointState(name=[yaw], position=[0.8]))
    scene.time.run(0.2)
    assert not scene.states
    scene.time.until(lambda: scene.states)
    assert list(scene.states[0].position) == pytest.approx([0.8, 0.0], abs=1e-6)
    assert scene.node.diagnose()[:2] == (WARN, f"started without joint_states of {pitch}: assumed neutral for them")


def test_a_stamp_of_zero_is_refused_where_nobody_allows_it(bench):
    node = bench.add(Retarget, robot="nao", stamp="zero")
    node.trigger_configure()
    assert node.phase == "unconfigured"
    assert node.fault.startswith("cannot configure: stamp 'zero' lets the controller exceed the limits")
    assert "\n" not in node.fault
    assert node.set_parameters([Parameter("exceed_limits", value=True)])[0].successful
    node.trigger_configure()
    assert (node.phase, node.fault) == ("inactive", None)


def test_a_stamp_of_zero_means_nothing_without_trajectories(bench):
    node = bench.add(Retarget, robot="nao", stamp="zero", output="forward")
    node.trigger_configure()
    assert (node.phase, node.fault) == ("inactive", None)


def test_a_stamp_of_zero_is_warned_of(bench):
    scene = Scene(bench, robot="nao", stamp="zero", exceed_limits=True)
    scene.tell(scene.measured, JointState(name=load_profile("nao").names, position=[0.0, 0.0]))
    scene.time.run(0.2)
    level, text, rows = scene.node.diagnose()
    assert (level, rows[FLAG]) == (WARN, "not known")
    assert text.startswith("stamp 'zero': velocities and accelerations may exceed limits")


def test_the_controller_is_asked_where_it_begins_trajectories(bench):
    controller = Node("head_controller", namespace="/robot", context=bench.context)
    controller.declare_parameter(FLAG, False)
    bench.executor.add_node(controller)
    flag = ControllerFlag(bench.probe, "/robot/head_controller/joint_trajectory")
    assert flag.poll() is None
    bench.until(lambda: flag.poll() is False)
    flag.close()
    bench.executor.remove_node(controller)
    controller.destroy_node()


def test_forward_commands_follow_the_profile(bench):
    scene = Scene(bench, robot="reachy2")
    scene.send(nods(0.5))
    scene.time.until(lambda: len(scene.forward) > 20)
    assert all(len(m.data) == 3 for m in scene.forward)
    assert not scene.trajectories


def test_a_pose_is_a_unit_quaternion_in_the_profiles_frame(bench):
    scene = Scene(bench, robot="reachy_mini")
    scene.send(nods(1.0))
    scene.time.run(0.8)
    q = [p.pose.orientation for p in scene.poses]
    q = np.array([[p.x, p.y, p.z, p.w] for p in q])
    assert np.allclose(np.linalg.norm(q, axis=1), 1.0)
    assert q[:, 1].max() > 0.05
    assert scene.poses[0].header.frame_id == load_profile("reachy_mini").pose_frame


def test_enable_stops_softly_and_holds(bench):
    scene = Scene(bench)
    client = bench.probe.create_client(SetBool, "retarget/enable")
    bench.until(client.service_is_ready)
    scene.send(nods(4.0, 0.3), ahead=0.2)
    scene.time.run(0.8)
    answer = client.call_async(SetBool.Request(data=False))
    bench.until(answer.done)
    assert answer.result().success
    scene.time.run(1.0)
    scene.settle()
    velocity = np.array([m.velocity for m in scene.states])
    assert np.abs(velocity[-40:]).max() == 0.0
    assert np.abs(velocity).max() > 0.5
    limits = load_profile("timar_head").limits()
    assert (np.abs(np.diff(velocity, axis=0)) <= limits["acceleration"] * 0.01 + 1e-6).all()
    held = positions(scene.states, "neck_pitch")[-1]
    assert scene.trajectories[-1].points[-1].positions[1] == pytest.approx(held, abs=1e-6)
    bench.until(client.call_async(SetBool.Request(data=True)).done)
    scene.time.until(lambda: np.abs(scene.states[-1].velocity).max() > 0.1)


def test_while_a_gaze_controller_owns_the_head_only_the_jaw_is_commanded(bench):
    scene = Scene(bench)
    scene.send(nods(4.0), ahead=0.1)
    scene.time.run(0.5)
    scene.tell(scene.gaze, Bool(data=True))
    scene.time.until(lambda: scene.trajectories[-1].joint_names[0] == "jaw")
    scene.tell(scene.gaze, Bool(data=False))
    scene.time.until(lambda: scene.trajectories[-1].joint_names[0] == "neck_yaw")


def test_an_interrupted_reply_is_over_in_200_ms_and_the_next_one_is_shown(bench):
    scene = Scene(bench)
    cancel = bench.probe.create_publisher(Header, "cancel", qos.commands())
    info = bench.probe.create_publisher(StreamInfo, "stream_info", qos.latched())
    for publisher in (cancel, info):
        bench.connected(publisher)
    scene.tell(info, StreamInfo(playback_delay=0.5))
    # Motion of what was said in 0.3 s, half of it worked out and sent already.
    scene.send(nods(3.0, 0.08), ahead=0.1)
    scene.time.run(1.3)
    interrupted = scene.time.now
    spoken = scene.trajectories[-1]
    scene.tell(cancel, Header(stamp=to_stamp(interrupted)))
    replaced = bench.until(lambda: scene.trajectories[-1] is not spoken and scene.trajectories[-1])
    scene.send(nods(0.5, 0.3), ahead=0.0)  # still on its way when the agent was interrupted
    scene.time.run(0.5)
    scene.send(nods(1.0, 0.1), ahead=0.1)  # said after it
    scene.time.run(1.5)
    scene.settle()

    profile = load_profile("timar_head")
    limits = profile.limits()
    stamps = np.array([to_ns(m.header.stamp) for m in scene.states])
    assert (np.diff(stamps) == 10_000_000).all()
    moved = np.stack([positions(scene.states, name) for name in profile.names]) - limits["neutral"][:, None]
    away = np.abs(moved)
    before, after = stamps <= interrupted, (stamps >= interrupted + 210_000_000) & (stamps <= interrupted + 500_000_000)
    assert away[:, before].max() > 0.05
    assert away[:, after].max() < 1e-3
    assert away[1, stamps > interrupted + 1_000_000_000].max() > 0.05
    # The robot's controller has it in one trajectory, which ends at rest.
    there = np.array(replaced.points[-1].positions) - limits["neutral"]
    assert np.abs(there).max() < 1e-3
    # It repeats what the controller has, which may read it a little later.
    standing = times(replaced) <= interrupted + 40_000_000
    assert times(replaced)[0] <= interrupted - 80_000_000
    same = np.isin(times(spoken), times(replaced)[standing])
    assert same.sum() > 5
    np.testing.assert_allclose(
        [p.positions for p in np.array(spoken.points)[same]],
        [p.positions for p in np.array(replaced.points)[standing][-same.sum() :]],
        atol=1e-12,
    )
    velocity = np.diff(moved, axis=1) / 0.01
    assert (np.abs(velocity).max(axis=1) <= limits["velocity"] + 1e-6).all()
    assert (np.abs(np.diff(velocity, axis=1) / 0.01).max(axis=1) <= limits["acceleration"] + 1e-6).all()
    rows = scene.node.diagnose()[2] | scene.node.statistics.rows(0.0)
    assert (rows["interruptions"], int(rows["frames cancelled"]) > 40) == ("1", True)


def test_style_is_set_by_service_and_checked(bench):
    scene = Scene(bench)
    client = bench.probe.create_client(SetStyle, "retarget/set_style")
    bench.until(client.service_is_ready)

    def ask(**style):
        future = client.call_async(SetStyle.Request(**{name: [value] for name, value in style.items()}))
        return bench.until(lambda: future.result() if future.done() else None)

    answer = ask(speaking_gain=0.0, listening_gain=0.5)
    assert answer.success, answer.message
    assert scene.node.driver.retargeter.options.speaking_gain == 0.0
    assert scene.node.value("listening_gain") == 0.5
    assert ask(speaking_gain=2.0, jaw_gain=0.5, nod_gain=1.5).success
    assert (scene.node.value("jaw_gain"), scene.node.driver.retargeter.options.nod_gain) == (0.5, 1.5)
    assert scene.node.value("listening_gain") == 0.5
    for wrong, words in (
        ({"speaking_gain": 9.0}, "out of range"),
        ({"guidance": 2.0}, "timar_inference"),
        ({"listening_gain": math.nan}, "not finite"),
    ):
        refused = ask(**wrong)
        assert not refused.success
        assert words in refused.message
    assert scene.node.value("speaking_gain") == 2.0


def test_deactivation_eases_to_neutral_then_is_silent(bench):
    scene = Scene(bench)
    scene.send(nods(3.0, 0.4), ahead=0.1)
    scene.time.run(0.9)
    scene.node.trigger_deactivate()
    bench.until(lambda: np.abs(scene.trajectories[-1].points[-1].positions).max() < 1e-3)
    assert np.abs(scene.trajectories[-1].points[-1].velocities).max() == 0.0
    count = len(scene.states)
    scene.motion.publish(motion_message(scene.time.now, 25.0, nods(1.0)))
    for _ in range(10):
        bench.executor.spin_once(timeout_sec=0.02)
    assert len(scene.states) == count


def test_without_a_trajectory_controller_deactivation_eases_out_by_itself(bench):
    scene = Scene(bench, robot="reachy2", ease=0.2)
    scene.send(nods(3.0, 0.2), ahead=0.1)
    scene.time.run(0.4)
    scene.node.trigger_deactivate()
    neutral = load_profile("reachy2").limits()["neutral"]
    bench.until(lambda: np.abs(np.array(scene.forward[-1].data) - neutral).max() < 2e-3)


def test_bad_frames_are_reported(bench):
    scene = Scene(bench)
    frames = nods(0.5)
    frames[3, 53] = 400.0
    scene.send(frames)
    scene.tell(scene.measured, joint_state_message(scene.time.now, ["neck_yaw"], [0.0]))
    level, message, rows = scene.node.diagnose()
    assert (level, message) == (WARN, "frames are not finite or out of range")
    assert float(rows["motion known ahead [s]"]) == pytest.approx(0.9, abs=0.1)


def test_motion_that_comes_too_late_is_reported(bench):
    scene = Scene(bench)
    scene.tell(scene.measured, joint_state_message(scene.time.now, ["neck_yaw"], [0.0]))
    scene.send(nods(1.0), ahead=-0.5)
    level, message, _ = scene.node.diagnose()
    assert level == WARN
    assert "raise playback_delay" in message


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (-3600.0, "stamps lie 3599 s in the past, so they are of another clock"),
        (-60.0, "stamps lie 59 s in the past, so they are of another clock"),
        (3600.0, "header.stamp lies 3600.0 s ahead of this node's clock: not followed"),
    ],
)
def test_motion_of_another_clock_is_named_also_where_joint_states_are_missing(bench, ahead, said):
    scene = Scene(bench)
    missing = "no joint_states: started from neutral"
    assert scene.node.diagnose()[:2] == (WARN, missing)
    scene.send(nods(1.0), ahead)
    level, message, _ = scene.node.diagnose()
    assert level == WARN
    assert message.startswith(said)
    scene.send(nods(1.0))
    assert scene.node.diagnose()[:2] == (WARN, missing)


def test_gains_change_while_it_runs(bench):
    scene = Scene(bench)
    assert scene.node.set_parameters([Parameter("speaking_gain", value=0.0)])[0].successful
    scene.send(nods(1.0))
    scene.time.run(1.4)
    assert np.abs(positions(scene.states, "neck_pitch")).max() < 1e-3


def test_time_that_runs_backwards_starts_anew(bench):
    scene = Scene(bench)
    scene.send(nods(1.0))
    scene.time.run(0.5)
    scene.time.now -= 50_000_000_000
    scene.time._publisher.publish(Clock(clock=to_stamp(scene.time.now)))
    scene.time.until(lambda: scene.node.driver.seen_ns <= scene.time.now)
    scene.states.clear()
    scene.time.until(lambda: scene.states)
    assert to_ns(scene.states[0].header.stamp) <= scene.time.now


def test_parameters_and_options_agree():
    """Defaults of the node are those of the library, so that offline and live motion are the same."""
    default = RetargetOptions()
    for parameter in PARAMETERS:
        if hasattr(default, parameter.name):
            value = getattr(default, parameter.name)
            assert parameter.default == (list(value) if isinstance(value, tuple) else value)
