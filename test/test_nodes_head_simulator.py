"""Node `head_simulator`: moves as a robot's controllers would, refuses what they refuse, films itself."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from support.ros_bench import Bench
from support.sim_time import SimTime
from trajectory_msgs.msg import JointTrajectory

from timar_ros.nodes.head_simulator import HeadSimulator
from timar_ros.ros import qos
from timar_ros.ros.base import WARN
from timar_ros.ros.joint_messages import doubles, trajectory_message
from timar_ros.ros.messages import to_ns


@pytest.fixture
def bench(ros_domain):
    with Bench() as bench:
        yield bench


class Scene:
    """The node in simulated time."""

    def __init__(self, bench: Bench, **parameters) -> None:
        self.bench = bench
        self.states = bench.listen(JointState, "joint_states", QoSProfile(depth=1000))
        self.node = bench.add(HeadSimulator, **{"engine": "kinematic", "use_sim_time": True, **parameters})
        self.trajectory = bench.probe.create_publisher(JointTrajectory, "joint_trajectory", qos.commands())
        self.forward = bench.probe.create_publisher(Float64MultiArray, "commands", qos.commands())
        self.pose = bench.probe.create_publisher(PoseStamped, "head_pose", qos.commands())
        bench.bring_up(self.node)
        for publisher in (self.trajectory, self.forward, self.pose):
            bench.connected(publisher)
        self.time = SimTime(bench, lambda: self.node._time_ns + self.node._lag_ns + 9_999_999)
        self.time.run(0.1)

    def tell(self, publisher, message) -> None:
        """Publish, and wait until the node has heard it."""
        self.bench.tell(self.node, publisher, message)

    def joint(self, name: str) -> float:
        state = self.states[-1] if self.states else None
        return 0.0 if state is None else state.position[list(state.name).index(name)]


@pytest.mark.parametrize("engine", ["kinematic", "mujoco"])
def test_it_follows_a_trajectory(bench, engine):
    if engine == "mujoco":
        pytest.importorskip("mujoco")
    scene = Scene(bench, engine=engine)
    scene.tell(scene.trajectory, trajectory_message(0, ["neck_yaw"], [0.3], [[0.5]], [[0.0]]))
    scene.time.until(lambda: abs(scene.joint("neck_yaw") - 0.5) < 0.01, 1.0)
    state = scene.states[-1]
    assert len(state.effort) == len(state.velocity) == len(state.name)
    assert (np.diff([to_ns(m.header.stamp) for m in scene.states]) == 10_000_000).all()


def test_behind_the_clock_a_trajectory_begins_at_its_stamp(bench):
    scene = Scene(bench, lag=1.0)
    bench.until(lambda: scene.states)
    scene.time.run(1.0)
    begin = scene.time.now - 500_000_000  # half a second ago by the clock, half a second ahead for the head
    scene.tell(scene.trajectory, trajectory_message(begin, ["neck_yaw"], [0.1, 0.3], [[0.0], [0.5]], [[0.0], [0.0]]))
    scene.time.run(2.0)
    stamps = np.array([to_ns(m.header.stamp) for m in scene.states]) - begin
    yaw = np.array([m.position[list(m.name).index("neck_yaw")] for m in scene.states])
    assert yaw[stamps <= 100_000_000].max() == 0.0
    assert 0.2 < yaw[np.argmin(np.abs(stamps - 200_000_000))] < 0.3
    assert yaw[-1] == pytest.approx(0.5)
    assert np.abs(np.diff(yaw)).max() < 0.05


def test_it_refuses_what_a_controller_refuses(bench):
    scene = Scene(bench)
    past = scene.time.now - 5_000_000_000
    for message in (
        trajectory_message(past, ["neck_yaw"], [0.3], [[0.5]], [[0.0]]),
        trajectory_message(0, ["elbow"], [0.3], [[0.5]]),
        trajectory_message(0, ["neck_yaw"], [0.3], [[0.5]], [[1.0]]),
    ):
        scene.tell(scene.trajectory, message)
    assert scene.node.statistics.counted("joint_trajectory rejected") == 3
    assert scene.node.diagnose()[0] == WARN
    scene.time.run(0.5)
    assert scene.joint("neck_yaw") == 0.0


def test_forward_commands_and_poses(bench):
    scene = Scene(bench, robot="reachy2")
    scene.tell(scene.forward, Float64MultiArray(data=doubles([0.1, -0.1, 0.4])))
    scene.time.until(lambda: abs(scene.joint("neck_yaw") - 0.4) < 1e-6)
    scene.tell(scene.forward, Float64MultiArray(data=doubles([0.1])))
    assert scene.node.statistics.counted("commands rejected") == 1
    message = PoseStamped()
    message.pose.orientation.z, message.pose.orientation.w = float(np.sin(0.1)), float(np.cos(0.1))
    scene.tell(scene.pose, message)
    scene.time.until(lambda: abs(scene.joint("neck_yaw") - 0.2) < 1e-6)


def test_noise_and_delay_of_the_sensors(bench):
    scene = Scene(bench, noise=0.01, delay=0.2)
    scene.time.until(lambda: len(scene.states) > 100)
    values = np.array([m.position[0] for m in scene.states])
    assert 0.007 < values.std() < 0.013
    assert scene.time.now - to_ns(scene.states[-1].header.stamp) >= 200_000_000


def test_it_films_itself(bench, tmp_path):
    pytest.importorskip("mujoco")
    pytest.importorskip("imageio_ffmpeg")
    film, picture = tmp_path / "head.mp4", tmp_path / "head.png"
    scene = Scene(bench, engine="mujoco", film=str(film), picture=str(picture), width=160, height=120)
    if scene.node._camera is None:
        pytest.skip("no OpenGL library to draw with")
    scene.time.run(0.3)
    scene.node.trigger_deactivate()
    assert film.read_bytes()[4:8] == b"ftyp"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_pictures_it_says_so_and_runs(bench):
    scene = Scene(bench, film="film.mp4")  # the kinematic head has no shape
    assert scene.node._film is None
    scene.time.until(lambda: scene.states)
