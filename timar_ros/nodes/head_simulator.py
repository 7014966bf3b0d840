"""Node `head_simulator`: a simulated head that follows commands as a robot's controllers do.

The node accepts trajectories by joint_trajectory_controller's rules, forward commands, and head poses. It publishes
joint states, with noise and delay on request, and its URDF for 3D viewers; it can film the head.
"""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from timar_ros.errors import UserError
from timar_ros.resources import share
from timar_ros.retarget.kinematics import Neck
from timar_ros.retarget.profile import load_profile
from timar_ros.ros import qos
from timar_ros.ros.base import OK, WARN, Diagnosis, ManagedNode, Parameter
from timar_ros.ros.joint_messages import joint_state_message
from timar_ros.ros.messages import MessageError, to_ns
from timar_ros.ros.node_process import run
from timar_ros.simulation.controller import ForwardController, RejectedError, TrajectoryController
from timar_ros.simulation.head import make_head
from timar_ros.simulation.render import Camera, Film, write_png

MAX_BACKLOG_NS = 5_000_000_000
"""The node does not simulate the time of a clock step larger than this."""


class HeadSimulator(ManagedNode):
    """Simulates one robot's head."""

    PARAMETERS = (
        Parameter("robot", "timar_head", "robot profile: a name (`timar robots list`) or a YAML file"),
        Parameter("engine", "auto", "dynamics; auto: MuJoCo if installed", choices=("auto", "mujoco", "kinematic")),
        Parameter("rate", 100.0, "control steps and joint states per second [Hz]", 10.0, 1000.0),
        Parameter("noise", 0.0, "standard deviation of the measured positions' noise [rad]", 0.0, 0.1),
        Parameter("delay", 0.0, "delay of published joint states; stamps are measurement times [s]", 0.0, 1.0),
        Parameter("allow_partial_joints_goal", True, "as the controller's: accept trajectories that leave out joints"),
        Parameter(
            "interpolate_from_desired_state",
            True,
            "as the controller's: a new trajectory begins at the last command; false: at the measured position",
        ),
        Parameter("servo_lag", 0.0, "time constant of the kinematic engine's joints [s]", 0.0, 1.0),
        Parameter(
            "lag",
            0.0,
            "how far the head stays behind the clock; trajectories then wait for their stamps. For a clock faster than "
            "the messages' transport: at speed 0 the clock is a turn ahead before a trajectory comes [s]",
            0.0,
            60.0,
        ),
        Parameter("seed", 0, "seed of the noise", 0),
        Parameter("film", "", "MP4 file of the moving head; empty: none"),
        Parameter("picture", "", "PNG file of the head, written at deactivation; empty: none"),
        Parameter("film_rate", 25.0, "pictures per second of the film [Hz]", 1.0, 60.0),
        Parameter("width", 640, "width of the pictures [pixels]", 64, 1920),
        Parameter("height", 480, "height of the pictures [pixels]", 64, 1080),
    )  # fmt: skip

    _camera: Camera | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__("head_simulator", **options)
        self._films = contextlib.ExitStack()

    def configure(self) -> None:
        """Create the head, its controllers, publishers and subscriptions."""
        self._profile = load_profile(self.value("robot"))
        self._head = make_head(self._profile, self.value("engine"), self.value("servo_lag"))
        self._neck = Neck(self._profile)
        self._controller = TrajectoryController(
            self._profile.names,
            allow_partial=self.value("allow_partial_joints_goal"),
            from_desired=self.value("interpolate_from_desired_state"),
        )
        self._forward = ForwardController(self._profile.names)
        self._states = self.publish_on(JointState, "joint_states", qos.commands())
        self._description = self.publish_on(String, "robot_description", qos.latched())
        self.subscribe(JointTrajectory, "joint_trajectory", self._take_trajectory, qos.commands(), optional=True)
        self.subscribe(Float64MultiArray, "commands", self._take_forward, qos.commands(), optional=True)
        self.subscribe(PoseStamped, "head_pose", self._take_pose, qos.commands(), optional=True)
        self._period_ns = round(1e9 / self.value("rate"))
        self.every(self._period_ns * 1e-9, self._tick)
        self.get_logger().info(f"simulating {self._profile.title} ({self._head.engine})")

    def activate(self) -> None:
        """Publish the description, hold the head at its position, start the film."""
        with contextlib.suppress(UserError):  # only the package's own robots have a description
            text = share("urdf", f"{self._profile.name}.urdf").read_text(encoding="utf-8")
            self._description.publish(String(data=text))
        self._controller.reset(self._head.read().position)
        self._commanded: NDArray[np.float64] | None = None
        self._time_ns = 0
        self._random = np.random.default_rng(self.value("seed"))
        self._waiting: deque[tuple[int, JointState]] = deque()
        self._queued: deque[JointTrajectory] = deque()
        self._lag_ns = round(self.value("lag") * 1e9)
        self._next_picture_ns = 0
        self._film: Film | None = None
        width, height = self.value("width") // 2 * 2, self.value("height") // 2 * 2
        if not self.value("film") and not self.value("picture"):
            return
        try:
            self._camera = Camera(self._head, width, height)
            if self.value("film"):
                film = Film(self.value("film"), width, height, self.value("film_rate"))
                self._film = self._films.enter_context(film)
        except UserError as error:
            self.get_logger().warning(f"no pictures: {error}")

    def deactivate(self) -> None:
        """Simulate up to the clock's time, finish film and picture."""
        if self._time_ns:
            self._simulate_until(self.now_ns())
            self._publish_states(self._time_ns)
        if self._camera is not None:
            if self.value("picture"):
                write_png(Path(self.value("picture")), self._camera.draw())
            self._camera.close()
            self._camera = None
        self._films.close()
        self._film = None

    def cleanup(self) -> None:
        """`configure` replaces all that it created."""

    def diagnose(self) -> Diagnosis:
        """Report the engine and rejected commands."""
        rows = {"engine": self._head.engine, "robot": self._profile.name, "film": str(self._film is not None)}
        rejected = sum(self.statistics.grown(f"{t} rejected") for t in ("joint_trajectory", "commands", "head_pose"))
        if rejected:
            return WARN, f"{rejected} commands rejected", rows
        return OK, "simulating", rows

    # Commands -------------------------------------------------------------------------------------------------------

    def _take_trajectory(self, message: JointTrajectory) -> None:
        # A controller replaces its trajectory at once; with a lag, the trajectory waits until its stamp.
        if self._lag_ns and to_ns(message.header.stamp) > self._time_ns:
            self._queued.append(message)
        else:
            self._follow(message)

    def _follow(self, message: JointTrajectory) -> None:
        points = message.points
        times = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in points]
        try:
            columns = {
                name: _rows(name, [getattr(point, name) for point in points])
                for name in ("positions", "velocities", "accelerations")
            }
            self._controller.take(
                self._time_ns or self.now_ns(),
                to_ns(message.header.stamp),
                message.joint_names,
                times,
                columns["positions"] if columns["positions"] is not None else (),
                columns["velocities"],
                columns["accelerations"],
            )
        except RejectedError as error:
            raise MessageError(str(error)) from error
        self._commanded = None

    def _take_forward(self, message: Float64MultiArray) -> None:
        try:
            self._commanded = self._forward.take(message.data)
        except RejectedError as error:
            raise MessageError(str(error)) from error

    def _take_pose(self, message: PoseStamped) -> None:
        q = message.pose.orientation
        quaternion = np.array([q.x, q.y, q.z, q.w])
        if not 0.9 < np.linalg.norm(quaternion) < 1.1:
            raise MessageError("orientation is no unit quaternion")
        positions = self._head.read().position if self._commanded is None else self._commanded.copy()
        neck = self._neck.solve(Rotation.from_quat(quaternion[None]))[0][0]
        positions[: len(neck)] = neck
        self._commanded = positions

    # Simulation -----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.now_ns()
        if now <= 0:
            return
        if not -self._lag_ns <= now - self._time_ns <= MAX_BACKLOG_NS + self._lag_ns:
            self._controller.reset(self._head.read().position)
            self._time_ns = now - self._period_ns
            self._next_picture_ns = now
            self._waiting.clear()
            self._queued.clear()
            self._simulate_until(now)  # once without lag: other nodes need the head's position at the start
        self._simulate_until(now - self._lag_ns)
        self._publish_states(now)

    def _simulate_until(self, until: int) -> None:
        """Simulate up to a time."""
        while self._time_ns + self._period_ns <= until:
            self._time_ns += self._period_ns
            while self._queued and to_ns(self._queued[0].header.stamp) <= self._time_ns:
                try:
                    self._follow(self._queued.popleft())
                except MessageError as error:
                    self.statistics.count("joint_trajectory rejected")
                    self.get_logger().warning(f"joint_trajectory: message rejected: {error}")
            self._head.command(self._controller_command() if self._commanded is None else self._commanded)
            self._head.step(self._period_ns * 1e-9)
            self._measure()
            self._draw()

    def _controller_command(self) -> NDArray[np.float64]:
        """The controller's command in the cycle that ends now."""
        measured = self._head.read()
        begin = self._time_ns - self._period_ns
        return self._controller.update(begin, self._period_ns, measured.position, measured.velocity)[0]

    def _publish_states(self, now: int) -> None:
        """Publish the joint states that are due."""
        late = now - round(self.value("delay") * 1e9)
        while self._waiting and self._waiting[0][0] <= late:
            self._states.publish(self._waiting.popleft()[1])
            self.statistics.tick("joint_states")

    def _measure(self) -> None:
        reading = self._head.read()
        noise = self.value("noise")
        position = reading.position
        if noise > 0.0:
            position = position + self._random.normal(0.0, noise, len(position))
        message = joint_state_message(self._time_ns, self._head.names, position, reading.velocity, reading.effort)
        self._waiting.append((self._time_ns, message))

    def _draw(self) -> None:
        if self._film is None or self._camera is None or self._time_ns < self._next_picture_ns:
            return
        self._next_picture_ns += round(1e9 / self.value("film_rate"))
        self._film.add(self._camera.draw())


def _rows(name: str, rows: list[Any]) -> NDArray[np.float64] | None:
    """One field of all points as [N, J]; None where no point has the field.

    :raises RejectedError: when only some points have the field, or with different lengths.
    """
    lengths = {len(row) for row in rows}
    if lengths <= {0}:
        return None
    if len(lengths) > 1:
        raise RejectedError(f"points have different numbers of {name}: {sorted(lengths)}")
    return np.array([np.frombuffer(row, np.float64) for row in rows])


def main() -> int:
    """Executable `head_simulator`."""
    return run(HeadSimulator)


if __name__ == "__main__":
    raise SystemExit(main())
