"""The one description of the graph: which nodes there are, with what parameters, in what order they come up.

Launch files, `timar up` and `timar demo` all build what they start from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from timar_ros.errors import UserError
from timar_ros.options import check, option, same_option
from timar_ros.retarget.profile import load_profile
from timar_ros.streaming.options import Mode, PipelineOptions

PACKAGE = "timar_ros"
SOURCES = ("recording", "bag", "microphone", "topics")
SIMULATORS = ("builtin", "gazebo", "mock", "none")

TURN = 1.0
"""Length of a turn of the models that there are [s]."""

FINE = 0.02
"""Length of audio chunks where every bit of delay counts [s]."""

ELSEWHERE = 600.0
"""How long activation waits for nodes that somebody must start on another machine [s]."""

TOPICS = {
    "user/audio": "timar_ros/msg/AudioChunk",
    "agent/audio": "timar_ros/msg/AudioChunk",
    "user/motion": "timar_ros/msg/FlameMotion",
    "agent/voice_timing": "timar_ros/msg/VoiceTiming",
    "turns": "timar_ros/msg/Turn",
    "agent/motion": "timar_ros/msg/FlameMotion",
    "agent/audio_out": "timar_ros/msg/AudioChunk",
    "stream_info": "timar_ros/msg/StreamInfo",
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "joint_states": "sensor_msgs/msg/JointState",
}
"""Topics of the conversation, relative to the graph's namespace, with their types."""


@dataclass(frozen=True)
class GraphOptions:
    """What a user can say about the graph; every field is a launch argument and an option of `timar up`.

    Each field's metadata has its ``help`` text and, where they are few, its ``choices``.
    """

    namespace: str = option("", "namespace of all nodes and topics, such as robot1")
    source: str = option("topics", "where audio comes from", choices=SOURCES)
    recording: str = option("", "source recording: stereo file, left the user, right the agent")
    user: str = option("", "source recording: the user's audio file, instead of `recording`")
    agent: str = option("", "source recording: the agent's audio file, instead of `recording`")
    user_motion: str = option("", "source recording: the user's tracked FLAME motion (.npz)")
    bag: str = option("", "source bag: folder or file of the bag to play")
    microphone: str = option("default", "source microphone: its name or number (`timar audio devices`)")
    speaker: str = option("", "sound device that the agent's audio is played on; empty: none")
    speed: float = option(1.0, "pace of a recording or bag: 1 real time, 0 as fast as turns are answered", low=0.0)
    model: str = option("", "model folder or file; empty: the model that ships")
    speech: str = option("", "speech encoder, where the model does not name one")
    device: str = option("auto", "cpu, cuda, cuda:1 … or auto")
    dtype: str = option("float32", "float32, bfloat16, float16, int8 or auto")
    mode: Mode = same_option(PipelineOptions, "mode")
    seed: int = same_option(PipelineOptions, "seed")
    planning_lead: float = same_option(PipelineOptions, "planning_lead")
    hop: float = same_option(PipelineOptions, "hop")
    hop_margin: float = same_option(PipelineOptions, "hop_margin")
    look_ahead: float = same_option(PipelineOptions, "look_ahead")
    robot: str = option("timar_head", "robot profile: a name (`timar robots list`) or a YAML file")
    sim: str = option(
        "none", "what moves the head: the built-in simulator, Gazebo, ros2_control's mock", choices=SIMULATORS
    )
    command_topic: str = option("", "topic of the robot's controller, `profile`: its profile's; empty: as `sim` needs")
    audio_file: str = option("", "file that the agent's audio is written to as it is played")
    record: str = option("", "bag to record everything into; it must not exist yet")
    use_sim_time: bool = option(False, "take time from /clock; set by itself for a source that is not in real time")
    only: str = option("", "start only these nodes of the graph (names with commas): the others run elsewhere")
    without: str = option("", "start all but these nodes (names with commas): they run elsewhere")
    params_file: str = option("", "YAML file of node parameters; empty: the nodes' own defaults")


@dataclass(frozen=True)
class NodeSpec:
    """One node: its executable (also its module in timar_ros.nodes and its name), parameters, inputs and outputs.

    ``params_file`` is empty, and ``parameters`` lacks an entry, where the user chose nothing and the graph needs
    nothing: what is given here would win over what a launch file sets for all of its nodes.
    """

    executable: str
    namespace: str
    params_file: str
    parameters: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    remappings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.executable

    @property
    def full_name(self) -> str:
        """The node's name with its namespace."""
        return f"{self.namespace.rstrip('/')}/{self.name}"


def describe(options: GraphOptions, observers: Sequence[str] = ()) -> list[NodeSpec]:
    """The nodes of the graph in the order in which they are to be activated: consumers before producers.

    :param observers: topics that the caller itself subscribes to, once each; activation then waits for it, too.
    :raises UserError: for options that contradict each other.
    """
    _check(options)
    namespace, file = _absolute(options.namespace), _parameter_file(options.params_file)
    paced = options.source in ("recording", "bag")
    ticking = _source_ticks(options)
    specs = []

    def chosen(name: str) -> Any:
        value = getattr(options, name)
        return None if value == getattr(GraphOptions, name) else value

    def add(
        executable: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        remappings: dict[str, str] | None = None,
        **parameters: Any,
    ) -> None:
        given = {name: value for name, value in parameters.items() if value is not None}
        is_clock = ticking and executable == _source_executable(options)
        if ticking or _foreign_clock(options):
            given["use_sim_time"] = not is_clock
        specs.append(NodeSpec(executable, namespace, file, given, tuple(inputs), tuple(outputs), remappings or {}))

    if options.record:
        simulated = {"use_sim_time": True} if ticking or _foreign_clock(options) else {}
        specs.append(recorder(options.record, options.namespace, file, **simulated))
    if options.sim == "builtin":
        # In lock-step the clock leaps a turn ahead while a trajectory is still on its way.
        lag = 2.5 * TURN if paced and options.speed == 0.0 else None
        add("head_simulator", ["joint_trajectory"], ["joint_states"], robot=chosen("robot"), lag=lag)
    add(
        "audio_sink",
        ["agent/audio", "agent/voice_timing", "stream_info"],
        ["agent/audio_out"],
        file=options.audio_file or None,
        device=options.speaker or None,
    )
    commands = _command_remapping(options)
    add(
        "retarget",
        ["agent/motion", "stream_info", "joint_states"],
        [] if commands else ["joint_trajectory"],
        commands,
        robot=chosen("robot"),
    )
    # Several nodes must agree on these, so all of them are told, whatever was chosen.
    timing = {name: getattr(options, name) for name in ("mode", "planning_lead", "hop", "hop_margin", "look_ahead")}
    add(
        "timar_inference",
        ["turns"],
        ["agent/motion", "stream_info"],
        model=options.model or None,
        speech=options.speech or None,
        device=chosen("device"),
        dtype=chosen("dtype"),
        seed=chosen("seed"),
        **timing,
    )
    # A recording's chunks cannot be late, only the machine can: waiting longer then costs nothing and loses nothing.
    # But the first turn cannot be planned before the waiting is over.
    patience = {"reactive": 0.5, "anticipatory": 0.1, "rolling": 0.1}[options.mode]
    add(
        "turn_segmenter",
        ["user/audio", "agent/audio", "user/motion", "stream_info"],
        ["turns", "agent/voice_timing"],
        **timing,
        max_lateness=patience if paced else None,
        # A recording's speech is published ahead. At speed 0 its stamps could not show that: time leaps.
        agent_ahead=True if options.mode == "rolling" and options.source == "recording" else None,
    )
    if source := _source_executable(options):
        add(source, *_source_wiring(options), **_source_parameters(options))
    return _chosen([_with_expectations(spec, specs, observers) for spec in specs], options)


def recorder(path: str, namespace: str = "", params_file: str = "", **parameters: Any) -> NodeSpec:
    """The node that records the graph of a namespace into a new bag."""
    given = {"path": path, **parameters}
    return NodeSpec("recorder", _absolute(namespace), _parameter_file(params_file), given, tuple(TOPICS), ())


def _chosen(specs: Sequence[NodeSpec], options: GraphOptions) -> list[NodeSpec]:
    """The nodes that run on this machine; expectations were made for the whole graph."""
    known = {spec.name for spec in specs}
    only, without = (
        {name.strip() for name in text.split(",") if name.strip()} for text in (options.only, options.without)
    )
    if unknown := (only | without) - known:
        raise UserError(f"no node {', '.join(sorted(unknown))} in this graph: it has {', '.join(sorted(known))}")
    chosen = [spec for spec in specs if (not only or spec.name in only) and spec.name not in without]
    if not chosen:
        raise UserError("`only` and `without` leave no node to start")
    if len(chosen) == len(specs):
        return chosen
    patient = {"expected_subscribers_timeout": ELSEWHERE}
    return [replace(spec, parameters={**spec.parameters, **patient}) for spec in chosen]


def _absolute(namespace: str) -> str:
    return "/" + namespace.strip("/")


def _parameter_file(given: str) -> str:
    if given and not Path(given).is_file():
        raise UserError(f"parameter file {given} not found")
    return given


def _check(options: GraphOptions) -> None:
    check(options)
    if options.source == "recording" and not (options.recording or (options.user and options.agent)):
        raise UserError("source 'recording' needs a stereo `recording`, or both of `user` and `agent`")
    if options.source == "bag" and not options.bag:
        raise UserError("source 'bag' needs `bag`")
    if _source_ticks(options) and _foreign_clock(options):
        raise UserError("the source and somebody else would both publish /clock: play it at speed 1, or do without")


def _source_ticks(options: GraphOptions) -> bool:
    """Whether the source publishes /clock: its time is not the wall's."""
    return options.source == "bag" or (options.source == "recording" and options.speed != 1.0)


def _foreign_clock(options: GraphOptions) -> bool:
    """Whether somebody outside the graph publishes /clock."""
    return options.use_sim_time or options.sim == "gazebo"


def _command_remapping(options: GraphOptions) -> dict[str, str]:
    """From the name of the command topic to that of the robot's controller."""
    wanted = options.command_topic or ("profile" if options.sim in ("gazebo", "mock") else "")
    if not wanted:
        return {}
    profile = load_profile(options.robot)
    if wanted == "profile":
        wanted = profile.command_topic
    own = {"trajectory": "joint_trajectory", "forward": "commands", "pose": "head_pose"}[profile.output]
    return {own: wanted} if wanted and wanted != own else {}


def _simulates_trajectories(options: GraphOptions) -> bool:
    """Whether the built-in simulator is sent trajectories, which must not come later than its clock."""
    return (
        options.sim == "builtin"
        and not _command_remapping(options)
        and load_profile(options.robot).output == "trajectory"
    )


def _source_executable(options: GraphOptions) -> str | None:
    return {"recording": "audio_source", "microphone": "audio_source", "bag": "bag_player"}.get(options.source)


def _source_wiring(options: GraphOptions) -> tuple[list[str], list[str]]:
    # At speed 0 the source waits for each turn's motion, and for what moves a simulated robot.
    inputs = ["agent/motion", "stream_info"] if options.speed == 0.0 else []
    if inputs and _simulates_trajectories(options):
        inputs.append("joint_trajectory")
    outputs = ["user/audio"] if options.source == "microphone" else ["user/audio", "agent/audio"]
    if options.source == "bag" or options.user_motion:
        outputs.append("user/motion")
    return inputs, outputs


def _source_parameters(options: GraphOptions) -> dict[str, Any]:
    followed = "trajectory" if options.speed == 0.0 and _simulates_trajectories(options) else None
    if options.source == "bag":
        return {"path": options.bag, "speed": options.speed, "answered_by": followed}
    if options.source == "microphone":
        return {"device": options.microphone, "chunk": FINE}
    # Before a turn can be planned, all of the agent's audio for it must have come, and a little for resampling.
    lead = {"anticipatory": TURN + options.planning_lead, "rolling": options.look_ahead}.get(options.mode)
    return {
        "recording": options.recording or None,
        "user": options.user or None,
        "agent": options.agent or None,
        "user_motion": options.user_motion or None,
        "speed": options.speed,
        "answered_by": followed,
        "publish_clock": _source_ticks(options),
        # The clock's step, too. A hop must not wait for a chunk as long as half of it.
        "chunk": FINE if _source_ticks(options) or options.mode == "rolling" else None,
        "agent_lead": None if lead is None else lead + 0.2,
        "turns_ahead": 0 if options.mode == "anticipatory" else None,
    }


def _with_expectations(spec: NodeSpec, specs: Sequence[NodeSpec], observers: Sequence[str]) -> NodeSpec:
    """Activation waits until each output is connected, so that the first messages are not lost to discovery."""
    wanted = []
    for topic in spec.outputs:
        count = sum(topic in other.inputs for other in specs) + sum(topic == observer for observer in observers)
        if count:
            wanted.append(f"{topic}={count}")
    return replace(spec, parameters={**spec.parameters, "expected_subscribers": wanted or [""]})
