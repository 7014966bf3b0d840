"""The one description of the graph: wiring, order, expectations, and that its parameters exist."""

from __future__ import annotations

from dataclasses import fields

import pytest

from timar_ros.errors import UserError
from timar_ros.graph.description import ELSEWHERE, TOPICS, GraphOptions, describe, recorder
from timar_ros.streaming.sampling_options import PipelineOptions

RECORDING = {"source": "recording", "recording": "talk.flac", "user_motion": "user.npz"}
WHOLE = GraphOptions(**RECORDING, sim="builtin", record="bag")


def by_name(specs):
    return {spec.name: spec for spec in specs}


def test_consumers_come_up_before_producers():
    seen: set[str] = set()
    for spec in describe(WHOLE):
        # joint_states go round (the simulator is told what to do, and tells where it is), stream_info is latched.
        late = [topic for topic in spec.inputs if topic in seen - {"joint_states", "stream_info"}]
        assert not late, f"{spec.name} comes up after the source of {late}"
        seen |= set(spec.outputs)


def test_every_topic_has_one_producer_and_somebody_to_hear_it():
    specs = describe(WHOLE)
    for topic in TOPICS:
        assert sum(topic in spec.outputs for spec in specs) == 1, topic
        assert any(topic in spec.inputs for spec in specs), topic


def test_activation_expects_everybody_who_listens():
    expected = by_name(describe(WHOLE, observers=("turns",)))["turn_segmenter"].parameters["expected_subscribers"]
    assert expected == ["turns=3", "agent/voice_timing=2"]  # inference, recorder, observer; sink, recorder


def test_a_recording_in_real_time_runs_by_the_wall_and_at_any_other_pace_by_its_own_clock():
    for speed, simulated in ((1.0, False), (4.0, True), (0.0, True)):
        specs = by_name(describe(GraphOptions(**RECORDING, speed=speed)))
        source = specs.pop("audio_source")
        assert source.parameters["publish_clock"] is simulated
        # Not given where it is the wall's: a launch file may set it for all of its nodes.
        assert source.parameters.get("use_sim_time") is (False if simulated else None)
        assert {spec.parameters.get("use_sim_time") for spec in specs.values()} == {True if simulated else None}


def test_what_the_user_has_not_chosen_is_left_to_the_nodes():
    for spec in describe(GraphOptions()):
        assert not spec.params_file
        assert not {"device", "dtype", "seed", "robot", "use_sim_time"} & set(spec.parameters), spec.name
    chosen = by_name(describe(GraphOptions(device="cpu", seed=3, robot="nao")))
    assert (chosen["timar_inference"].parameters["device"], chosen["timar_inference"].parameters["seed"]) == ("cpu", 3)
    assert chosen["retarget"].parameters["robot"] == "nao"


def test_a_tracker_shows_the_partner_before_the_sound_begins():
    plain = describe(GraphOptions(source="microphone"))
    assert "face_tracker" not in by_name(plain)
    specs = describe(GraphOptions(source="microphone", tracker="camera", camera="/dev/video2"))
    assert [spec.name for spec in specs][-3:] == ["turn_segmenter", "face_tracker", "audio_source"]
    tracker = by_name(specs)["face_tracker"]
    assert tracker.parameters == {
        "input": "camera",
        "camera": "/dev/video2",
        "expected_subscribers": ["user/motion=1"],
    }


def test_an_avatar_is_sent_to_only_when_asked():
    assert "avatar_bridge" not in by_name(describe(GraphOptions()))
    specs = by_name(describe(GraphOptions(vmc=39539)))
    assert specs["avatar_bridge"].parameters["vmc_port"] == 39539
    assert "agent/motion=2" in specs["timar_inference"].parameters["expected_subscribers"]  # retarget, avatar


def test_pictures_of_the_partner_are_not_recorded():
    chosen = {"tracker": "topic", "image_topic": "camera/image", "record": "bag"}
    assert by_name(describe(GraphOptions(**chosen)))["recorder"].parameters["exclude"] == [
        *("/rosout", "/parameter_events", "camera/image"),
    ]
    assert "exclude" not in by_name(describe(GraphOptions(record="bag")))["recorder"].parameters


@pytest.mark.parametrize(
    "options",
    [
        {"source": "bag", "bag": "talk"},
        {**RECORDING},
        {"source": "recording", "recording": "talk.flac", "speed": 2.0},
    ],
)
def test_a_camera_needs_real_time_and_to_be_alone(options):
    with pytest.raises(UserError, match="tracker"):
        describe(GraphOptions(**options, tracker="camera"))


@pytest.mark.parametrize(
    ("node", "name"),
    [("timar_inference", n) for n in ("device", "dtype", "seed")]
    + [("retarget", "robot"), ("head_simulator", "robot"), ("face_tracker", "camera"), ("face_tracker", "image_topic")],
)
def test_the_defaults_of_the_graph_are_those_of_the_nodes(node, name):
    pytest.importorskip("rclpy")
    from timar_ros.graph.parameter_reference import node_class

    defaults = {parameter.name: parameter.default for parameter in node_class(node).PARAMETERS}
    assert getattr(GraphOptions, name) == defaults[name]


def test_at_speed_0_the_source_hears_the_answers():
    source = by_name(describe(GraphOptions(**RECORDING, speed=0.0)))["audio_source"]
    assert "agent/motion" in source.inputs


@pytest.mark.parametrize("speed", [0.0, 1.0])
def test_rolling_mode_reaches_all_who_must_know(speed):
    wanted = {"mode": "rolling", "hop": 0.04, "hop_margin": 0.2, "look_ahead": 0.6}
    specs = by_name(describe(GraphOptions(**RECORDING, speed=speed, **wanted)))
    for name in ("turn_segmenter", "timar_inference"):
        assert {key: specs[name].parameters[key] for key in wanted} == wanted
    # A recording is published ahead, and the segmenter told so; what comes on topics must show it by its stamps.
    assert specs["turn_segmenter"].parameters["agent_ahead"] is True
    assert specs["audio_source"].parameters["agent_lead"] > wanted["look_ahead"]
    assert "agent_ahead" not in by_name(describe(GraphOptions(**wanted)))["turn_segmenter"].parameters


def test_anticipatory_mode_reaches_all_who_must_know():
    specs = by_name(describe(GraphOptions(**RECORDING, mode="anticipatory")))
    assert specs["turn_segmenter"].parameters["mode"] == specs["timar_inference"].parameters["mode"] == "anticipatory"
    segmenter, source = specs["turn_segmenter"].parameters, specs["audio_source"].parameters
    assert 0.15 <= segmenter["planning_lead"] < source["agent_lead"] - 1.0
    # What is planned when no option is given must be what is generated when none is.
    assert segmenter["planning_lead"] == PipelineOptions().planning_lead


def test_namespaces_are_absolute_however_they_are_written():
    for given, full in (("", "/audio_sink"), ("a", "/a/audio_sink"), ("/a/b/", "/a/b/audio_sink")):
        assert by_name(describe(GraphOptions(namespace=given)))["audio_sink"].full_name == full


def test_every_node_has_its_own_enclave_where_asked():
    assert {spec.enclave for spec in describe(WHOLE)} == {""}
    for spec in describe(GraphOptions(**RECORDING, enclaves="/timar/")):
        assert spec.enclave == f"/timar/{spec.name}"


def test_only_and_without_split_the_graph_but_not_its_expectations():
    whole = by_name(describe(WHOLE))
    here = describe(GraphOptions(**RECORDING, sim="builtin", record="bag", without="timar_inference, recorder"))
    there = describe(GraphOptions(**RECORDING, sim="builtin", record="bag", only="timar_inference,recorder"))
    assert {s.name for s in here} | {s.name for s in there} == set(whole)
    assert not {s.name for s in here} & {s.name for s in there}
    for spec in (*here, *there):
        expected = whole[spec.name].parameters | {"expected_subscribers_timeout": ELSEWHERE}
        assert spec.parameters == expected


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"source": "radio"}, "source"),
        ({"source": "recording"}, "recording"),
        ({"source": "recording", "user": "u.wav"}, "agent"),
        ({"source": "bag"}, "bag"),
        ({"speed": -1.0}, "speed"),
        ({"mode": "maybe"}, "mode"),
        ({"params_file": "/no/such.yaml"}, "/no/such.yaml"),
        ({"only": "nobody"}, "nobody"),
        ({"without": "retarget,audio_sink,turn_segmenter,timar_inference"}, "no node"),
    ],
)
def test_contradictions_are_refused_in_one_line(options, named):
    with pytest.raises(UserError, match=named) as caught:
        describe(GraphOptions(**options))
    assert "\n" not in str(caught.value)


def test_every_option_is_explained():
    for item in fields(GraphOptions):
        assert item.metadata["help"], item.name


def test_a_recorder_alone_takes_everything():
    spec = recorder("bag", "robot1", storage="mcap")
    assert (spec.full_name, set(spec.inputs), spec.parameters["path"]) == ("/robot1/recorder", set(TOPICS), "bag")


def test_every_parameter_that_the_graph_sets_exists_and_is_accepted():
    pytest.importorskip("rclpy")
    from timar_ros.graph.parameter_reference import node_class
    from timar_ros.ros.endpoints import COMMON

    for options in (
        WHOLE,
        GraphOptions(source="microphone"),
        GraphOptions(source="bag", bag="b"),
        GraphOptions(**RECORDING, mode="anticipatory", speed=0.0, model="m", speech="s", audio_file="a.wav"),
    ):
        for spec in describe(options):
            table = {p.name: p for p in (*node_class(spec.executable).PARAMETERS, *COMMON)}
            for name, value in spec.parameters.items():
                if name != "use_sim_time":
                    assert name in table, f"{spec.name} has no parameter {name}"
                    assert table[name].fault(value) is None


def test_the_parameter_file_holds_every_parameter_at_its_default(repository):
    pytest.importorskip("rclpy")
    from timar_ros.graph.parameter_reference import as_yaml

    written = (repository / "config" / "timar.yaml").read_text()
    assert written == as_yaml(), "write it anew: python -m timar_ros.graph.parameter_reference yaml > config/timar.yaml"


def test_the_reference_knows_every_node(repository):
    pytest.importorskip("rclpy")
    from timar_ros.graph.parameter_reference import NODES

    modules = (repository / "timar_ros" / "nodes").glob("*.py")
    assert {path.stem for path in modules if "\ndef main() -> int:" in path.read_text()} == set(NODES)


def test_what_the_graph_records_is_what_the_recorder_knows_from_the_start() -> None:
    """A topic that the recorder had to discover first would keep its publisher waiting for a subscriber."""
    from timar_ros.bags import bag_files
    from timar_ros.graph import description

    assert description.TOPICS.items() <= bag_files.TOPICS.items()
