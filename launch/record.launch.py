"""Records a running graph into a bag until the launch ends: `ros2 launch timar_ros record.launch.py out:=my_bag`."""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from timar_ros.graph.description import recorder
from timar_ros.graph.launching import TRUE, start

ARGUMENTS = {
    "out": (None, "folder of the bag; it must not exist yet"),
    "namespace": ("", "namespace of the graph to record"),
    "storage": ("mcap", "kind of bag: mcap or sqlite3"),
    "use_sim_time": ("False", "stamp messages by /clock"),
}


def _recorder(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    spec = recorder(
        value["out"],
        value["namespace"],
        storage=value["storage"],
        **({"use_sim_time": True} if value["use_sim_time"].lower() in TRUE else {}),
    )
    return start([spec])


def generate_launch_description() -> LaunchDescription:
    declared = [DeclareLaunchArgument(n, default_value=d, description=text) for n, (d, text) in ARGUMENTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=_recorder)])
