"""Runs the head with a simulated robot: built-in, in Gazebo, or ros2_control's mock hardware; RViz on request.

`sim:=builtin` needs no other package. `sim:=gazebo` needs ros_gz_sim, ros_gz_bridge, gz_ros2_control and
ros2_controllers; `sim:=mock` controller_manager and ros2_controllers; `rviz:=true` robot_state_publisher and rviz2.
These three show the package's own head and refuse another `robot:=`, since a profile contains no model of the robot.
`sim:=builtin` accepts every profile.
"""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import Command, FindExecutable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from timar_ros.errors import UserError
from timar_ros.graph.description import GraphOptions
from timar_ros.graph.launching import TRUE, description, full_namespace
from timar_ros.resources import share
from timar_ros.retarget.profile import load_profile

ROBOT = "timar_head"
"""The robot of urdf/timar_head.urdf.xacro and config/controllers/timar_head.yaml."""

CONTROLLERS = ("joint_state_broadcaster", "head_controller")


def generate_launch_description() -> LaunchDescription:
    return description(
        extra=_robot,
        declared=[
            DeclareLaunchArgument("rviz", default_value="false", description="show the robot in RViz"),
            DeclareLaunchArgument("gui", default_value="true", description="show Gazebo's window"),
        ],
        source="recording",
        recording=share("samples", "conversation.flac"),
        user_motion=share("samples", "conversation_user.npz"),
        sim="builtin",
    )


def _robot(context: LaunchContext, options: GraphOptions) -> list[LaunchDescriptionEntity]:
    namespace = full_namespace(context, options)
    rviz = LaunchConfiguration("rviz").perform(context).lower() in TRUE
    gui = LaunchConfiguration("gui").perform(context).lower() in TRUE
    if (rviz or options.sim in ("gazebo", "mock")) and (name := load_profile(options.robot).name) != ROBOT:
        what = "rviz:=true" if options.sim not in ("gazebo", "mock") else f"sim:={options.sim}"
        raise UserError(
            f"robot:={name} cannot be shown by {what}, which loads {ROBOT}'s model: use sim:=builtin without RViz, "
            "or start the robot's own simulation and bringup.launch.py"
        )
    actions: list[LaunchDescriptionEntity] = []
    if rviz or options.sim in ("gazebo", "mock"):
        actions.append(_state_publisher(namespace, options))
    if options.sim == "gazebo":
        actions += _gazebo(namespace, gui)
    if options.sim == "mock":
        actions.append(_mock(namespace))
    if options.sim in ("gazebo", "mock"):
        actions += [_spawner(name, namespace) for name in CONTROLLERS]
    if rviz:
        actions.append(_rviz(namespace, options))
    return actions


def _state_publisher(namespace: str, options: GraphOptions) -> Node:
    hardware = options.sim if options.sim in ("gazebo", "mock") else "none"
    meshes = f" meshes:=file://{share('urdf', 'meshes')}" if hardware == "gazebo" else ""
    model = Command([
        FindExecutable(name="xacro"),
        f" {share('urdf', 'timar_head.urdf.xacro')} sim:={hardware}",
        f" controllers:={share('config', 'controllers', 'timar_head.yaml')} namespace:={namespace}{meshes}",
    ])  # fmt: skip
    parameters = {
        "robot_description": ParameterValue(model, value_type=str),
        "use_sim_time": options.use_sim_time or options.sim == "gazebo",
    }
    return Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        namespace=namespace,
        parameters=[parameters],
    )


def _gazebo(namespace: str, gui: bool) -> list[LaunchDescriptionEntity]:
    world = share("urdf", "worlds", "timar_head.sdf")
    simulator = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([FindPackageShare("ros_gz_sim"), "launch", "gz_sim.launch.py"])
        ),
        launch_arguments={"gz_args": f"-r {'' if gui else '-s '}{world}", "on_exit_shutdown": "true"}.items(),
    )
    spawn = Node(
        package="ros_gz_sim",
        executable="create",
        namespace=namespace,
        arguments=["-topic", "robot_description", "-name", "timar_head"],
    )
    clock = Node(
        package="ros_gz_bridge",
        executable="parameter_bridge",
        arguments=["/clock@rosgraph_msgs/msg/Clock[gz.msgs.Clock"],
    )
    return [simulator, spawn, clock]


def _mock(namespace: str) -> Node:
    return Node(
        package="controller_manager",
        executable="ros2_control_node",
        namespace=namespace,
        parameters=[str(share("config", "controllers", "timar_head.yaml"))],
    )


def _spawner(controller: str, namespace: str) -> Node:
    return Node(
        package="controller_manager",
        executable="spawner",
        namespace=namespace,
        arguments=[
            controller,
            "--controller-manager",
            f"{namespace.rstrip('/')}/controller_manager",
            "--param-file",
            str(share("config", "controllers", "timar_head.yaml")),
        ],
    )


def _rviz(namespace: str, options: GraphOptions) -> Node:
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=namespace,
        arguments=["-d", str(share("config", "rviz", "timar_head.rviz"))],
        parameters=[{"use_sim_time": options.use_sim_time or options.sim == "gazebo"}],
    )
