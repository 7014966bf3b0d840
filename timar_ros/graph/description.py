"""The single description of the graph: its nodes, their parameters, and the order of their activation.

Launch files, `timar up` and `timar demo` all use this description.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from timar_ros.errors import UserError
from timar_ros.options import check, option, same_option
from timar_ros.retarget.profile import load_profile
from timar_ros.streaming.sampling_options import Mode, PipelineOptions

PACKAGE = "timar_ros"
SOURCES = ("recording", "bag", "microphone", "topics")
TRACKERS = ("none", "camera", "topic")
SIMULATORS = ("builtin", "gazebo", "mock", "none")

NOT_RECORDED = ("/rosout", "/parameter_events")
"""Topics that `recorder` leaves out by default."""

TURN = 1.0
"""Length of a turn of the package's models [s]."""

FINE = 0.02
"""Length of audio chunks for a short delay [s]."""

ELSEWHERE = 600.0
"""How long activation waits for nodes that the user starts on another machine [s]."""

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
    """The user's options of the graph; every field is a launch argument and an option of `timar up`.

    Each field's metadata has its ``help`` text and its ``choices``, if any.
    """

    namespace: str = option("", "namespace of all nodes and topics, such as robot1")
    source: str = option("topics", "source of the audio", choices=SOURCES)
    recording: str = option("", "source recording: stereo file, user left, agent right")
    user: str = option("", "source recording: the user's audio file, instead of `recording`")
    agent: str = option("", "source recording: the agent's audio file, instead of `recording`")
    user_motion: str = option("", "source recording: the user's tracked FLAME motion (.npz)")
    bag: str = option("", "source bag: folder or file of the bag to play")
    microphone: str = option("default", "source microphone: its name or number (`timar audio devices`)")
    tracker: str = option(
        "none",
        "what shows the partner's face: a camera or video file, an image topic",
        choices=TRACKERS,
    )
    camera: str = option("0", "tracker camera: its number or path, a video file, or a stream's address")
    image_topic: str = option("image_raw", "tracker topic: topic of Image or CompressedImage")
    speaker: str = option("", "sound device that plays the agent's audio; empty: none")
    speed: float = option(1.0, "speed of a recording or bag; 1: real time, 0: as fast as turns are answered", low=0.0)
    model: str = option("", "model folder or file; empty: the package's model")
    speech: str = option("", "speech encoder, if the model names none")
    device: str = option("auto", "cpu, cuda, cuda:1 … or auto")
    dtype: str = option("float32", "float32, bfloat16, float16, int8 or auto")
    mode: Mode = same_option(PipelineOptions, "mode")
    seed: int = same_option(PipelineOptions, "seed")
    planning_lead: float = same_option(PipelineOptions, "planning_lead")
    hop: float = same_option(PipelineOptions, "hop")
    hop_margin: float = same_option(PipelineOptions, "hop_margin")
    look_ahead: float = same_option(PipelineOptions, "look_ahead")
    channel: int = same_option(PipelineOptions, "channel")
    robot: str = option("timar_head", "robot profile: a name (`timar robots list`) or a YAML file")
    sim: str = option(
        "none", "simulator of the head: the built-in one, Gazebo, ros2_control's mock", choices=SIMULATORS
    )
    command_topic: str = option(
        "", "topic of the robot's controller; `profile`: the profile's; empty: depends on `sim`"
    )
    audio_file: str = option("", "file to write the agent's played audio to")
    vmc: int = option(
        0, "port on this machine that gets the agent's head and jaw as VMC (avatars); 0: none", low=0, high=65535
    )
    record: str = option("", "bag to record all topics into; it must not exist yet")
    page: bool = option(False, "serve a page on this machine that shows the conversation live (docs/live.md)")
    urdf: str = option("", "page: the robot's URDF; empty: the package's own, else the one on robot_description")
    enclaves: str = option(
        "", "SROS2: beginning of the names of the nodes' enclaves, such as /timar; empty: none (SECURITY.md)"
    )
    respawn: bool = option(
        False, "restart a node that died, at most 5 times in a minute; the conversation goes on (docs/graph.md)"
    )
    state_file: str = option(
        "", "file (.npz) that keeps the conversation over restarts; empty: with `respawn` a private temporary one"
    )
    use_sim_time: bool = option(False, "use the time of /clock; set automatically for a source not in real time")
    only: str = option("", "start only these nodes of the graph (names with commas): the others run elsewhere")
    without: str = option("", "start all but these nodes (names with commas): they run elsewhere")
    params_file: str = option("", "YAML file of node parameters; empty: the nodes' defaults")


@dataclass(frozen=True)
class NodeSpec:
    """One node: its executable (also its module in timar_ros.nodes and its name), parameters, inputs and outputs.

    ``params_file`` is empty, and ``parameters`` lacks an entry, where neither the user nor the graph sets a value: a
    value here would override the values that a launch file sets for all of its nodes.
    """

    executable: str
    namespace: str
    params_file: str
    parameters: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    remappings: dict[str, str] = field(default_factory=dict)
    enclave: str = ""
    """The node's security enclave; empty: the environment's."""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.executable

    @property
    def full_name(self) -> str:
        """The node's name with its namespace."""
        return f"{self.namespace.rstrip('/')}/{self.name}"


def describe(
    options: GraphOptions, observers: Sequence[str] = (), page: dict[str, Any] | None = None
) -> list[NodeSpec]:
    """The nodes of the graph in the order of activation: consumers before producers.

    :param observers: topics that the caller itself subscribes to, once each; activation waits for the caller, too.
    :param page: further parameters of the live page.
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
        values = {name: value for name, value in parameters.items() if value is not None}
        is_clock = ticking and executable == _source_executable(options)
        if ticking or _foreign_clock(options):
            values["use_sim_time"] = not is_clock
        specs.append(NodeSpec(executable, namespace, file, values, tuple(inputs), tuple(outputs), remappings or {}))

    if options.record:
        simulated: dict[str, Any] = {"use_sim_time": True} if ticking or _foreign_clock(options) else {}
        if options.tracker == "topic":  # no picture of a partner is kept
            simulated["exclude"] = [*NOT_RECORDED, options.image_topic]
        specs.append(recorder(options.record, options.namespace, file, **simulated))
    if options.page:
        add("live_page", [], [], robot=chosen("robot"), urdf=options.urdf or None, **(page or {}))
    if options.sim == "builtin":
        # At speed 0 the clock jumps a turn ahead before the trajectory arrives.
        lag = 2.5 * TURN if paced and options.speed == 0.0 else None
        add("head_simulator", ["joint_trajectory"], ["joint_states"], robot=chosen("robot"), lag=lag)
    add(
        "audio_sink",
        ["agent/audio", "agent/voice_timing", "stream_info"],
        ["agent/audio_out"],
        file=options.audio_file or None,
        device=options.speaker or None,
    )
    if options.vmc:
        add("avatar_bridge", ["agent/motion", "stream_info"], [], vmc_port=options.vmc)
    commands = _command_remapping(options)
    add(
        "retarget",
        ["agent/motion", "stream_info", "joint_states"],
        [] if commands else ["joint_trajectory"],
        commands,
        robot=chosen("robot"),
    )
    # Several nodes must agree on these options, so all of them get the values, also defaults.
    shared = ("mode", "planning_lead", "hop", "hop_margin", "look_ahead", "channel")
    timing = {name: getattr(options, name) for name in shared}
    add(
        "timar_inference",
        ["turns"],
        ["agent/motion", "stream_info"],
        model=options.model or None,
        speech=options.speech or None,
        device=chosen("device"),
        dtype=chosen("dtype"),
        seed=chosen("seed"),
        state_file=options.state_file or None,
        **timing,
    )
    # A recording's chunks are late only on a slow machine: a longer wait costs nothing and loses nothing. But the first
    # turn cannot be planned before the end of the wait.
    patience = {"reactive": 0.5, "anticipatory": 0.1, "rolling": 0.1}[options.mode]
    add(
        "turn_segmenter",
        ["user/audio", "agent/audio", "user/motion", "stream_info"],
        ["turns", "agent/voice_timing"],
        **timing,
        max_lateness=patience if paced else None,
        # A recording's speech is published ahead. At speed 0 the time jumps, so stamps cannot show that.
        agent_ahead=True if options.mode == "rolling" and options.source == "recording" else None,
    )
    if options.tracker != "none":
        add(
            "face_tracker",
            [],
            ["user/motion"],
            input=options.tracker,
            camera=chosen("camera"),
            image_topic=chosen("image_topic"),
        )
    if source := _source_executable(options):
        add(source, *_source_wiring(options), **_source_parameters(options))
    described = [_with_expectations(spec, specs, observers) for spec in specs]
    if options.enclaves:
        described = [replace(spec, enclave=f"{_absolute(options.enclaves)}/{spec.name}") for spec in described]
    return _chosen(described, options)


def recorder(path: str, namespace: str = "", params_file: str = "", **parameters: Any) -> NodeSpec:
    """The node that records the graph of a namespace into a new bag."""
    values = {"path": path, **parameters}
    return NodeSpec("recorder", _absolute(namespace), _parameter_file(params_file), values, tuple(TOPICS), ())


def _chosen(specs: Sequence[NodeSpec], options: GraphOptions) -> list[NodeSpec]:
    """The nodes that run on this machine; their expected subscribers cover the whole graph."""
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


def _parameter_file(path: str) -> str:
    if path and not Path(path).is_file():
        raise UserError(f"parameter file {path} not found")
    return path


def _check(options: GraphOptions) -> None:
    check(options)
    if options.source == "recording" and not (options.recording or (options.user and options.agent)):
        raise UserError("source 'recording' needs a stereo `recording`, or both of `user` and `agent`")
    if options.source == "bag" and not options.bag:
        raise UserError("source 'bag' needs `bag`")
    if options.tracker != "none" and (options.source == "bag" or options.user_motion):
        raise UserError("the source and `tracker` would both publish user/motion: leave `user_motion` or `tracker` out")
    if options.tracker != "none" and _source_ticks(options):
        raise UserError("`tracker` sees the world in real time: play the recording at speed 1")
    if _source_ticks(options) and _foreign_clock(options):
        raise UserError("the source and another node would both publish /clock: use speed 1, or drop the other clock")


def _source_ticks(options: GraphOptions) -> bool:
    """Whether the source publishes /clock: it does not play in wall time."""
    return options.source == "bag" or (options.source == "recording" and options.speed != 1.0)


def _foreign_clock(options: GraphOptions) -> bool:
    """Whether a node outside the graph publishes /clock."""
    return options.use_sim_time or options.sim == "gazebo"


def _command_remapping(options: GraphOptions) -> dict[str, str]:
    """Remapping from the command topic to the topic of the robot's controller."""
    topic = options.command_topic or ("profile" if options.sim in ("gazebo", "mock") else "")
    if not topic:
        return {}
    profile = load_profile(options.robot)
    if topic == "profile":
        topic = profile.command_topic
    own = {"trajectory": "joint_trajectory", "forward": "commands", "pose": "head_pose"}[profile.output]
    return {own: topic} if topic and topic != own else {}


def _simulates_trajectories(options: GraphOptions) -> bool:
    """Whether the built-in simulator receives trajectories, which must not come later than its clock."""
    return (
        options.sim == "builtin"
        and not _command_remapping(options)
        and load_profile(options.robot).output == "trajectory"
    )


def _source_executable(options: GraphOptions) -> str | None:
    return {"recording": "audio_source", "microphone": "audio_source", "bag": "bag_player"}.get(options.source)


def _source_wiring(options: GraphOptions) -> tuple[list[str], list[str]]:
    # At speed 0 the source waits for each turn's motion, and for a simulated robot's trajectory.
    inputs = ["agent/motion", "stream_info"] if options.speed == 0.0 else []
    if inputs and _simulates_trajectories(options):
        inputs.append("joint_trajectory")
    if options.source == "bag":
        inputs.append("turns")
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
    # A plan needs all of the agent's audio of the turn, and a little more for resampling.
    lead = {"anticipatory": TURN + options.planning_lead, "rolling": options.look_ahead}.get(options.mode)
    return {
        "recording": options.recording or None,
        "user": options.user or None,
        "agent": options.agent or None,
        "user_motion": options.user_motion or None,
        "speed": options.speed,
        "answered_by": followed,
        "publish_clock": _source_ticks(options),
        # Also the clock's step. A hop must not wait for a chunk half as long as the hop.
        "chunk": FINE if _source_ticks(options) or options.mode == "rolling" else None,
        "agent_lead": None if lead is None else lead + 0.2,
        "turns_ahead": 0 if options.mode == "anticipatory" else None,
    }


def _with_expectations(spec: NodeSpec, specs: Sequence[NodeSpec], observers: Sequence[str]) -> NodeSpec:
    """Add the subscribers that activation waits for, so that no first message is lost during discovery."""
    expected = []
    for topic in spec.outputs:
        count = sum(topic in other.inputs for other in specs) + sum(topic == observer for observer in observers)
        if count:
            expected.append(f"{topic}={count}")
    return replace(spec, parameters={**spec.parameters, "expected_subscribers": expected or [""]})
