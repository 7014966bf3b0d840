"""One definition of the options: checks, flags, node parameters, StreamInfo and the graph follow from it."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from timar_ros.bags.bag_types import typestore
from timar_ros.cli.main import build_parser
from timar_ros.errors import UserError
from timar_ros.graph.description import GraphOptions, describe
from timar_ros.model import TimarConfig
from timar_ros.motion import MOTION_RATE
from timar_ros.options import add_flags, check, flag_values, from_plain, option, options_of, to_plain
from timar_ros.streaming.offline import resolve_model
from timar_ros.streaming.sampling_options import PipelineOptions
from timar_ros.streaming.stream_info import info_of, options_from
from timar_ros.streaming.turns.turn_builder import TurnBuilder

OPTIONS = options_of(PipelineOptions)


@dataclasses.dataclass(frozen=True)
class Some:
    count: int = option(3, "how many", low=1, high=5)
    length: float | None = option(None, "how long", unit="s", low=0, high=2, kind=float, unset=-1.0, none="long enough")
    kind: str = option("a", "which", choices=("a", "b"))
    loud: bool = option(True, "whether it is loud")

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"count": 6}, "count = 6: must be a whole number from 1 to 5"),
        ({"count": 2.0}, "whole number"),
        ({"count": True}, "whole number"),
        ({"length": float("nan")}, "length = nan: must be a number from 0 to 2"),
        ({"length": "1"}, "length"),
        ({"kind": "c"}, "kind = 'c': use a or b"),
        ({"loud": 1}, "loud = 1: must be true or false"),
        ({"count": None}, "count"),
    ],
)
def test_every_value_is_checked_with_its_reason(value: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Some(**value)


def test_flags_give_the_options_back() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, Some, defaults={"kind": "b"})
    assert Some(**flag_values(parser.parse_args([]), Some)) == Some(kind="b")
    told = parser.parse_args(["--count", "1", "--length", "0.5", "--kind", "a", "--no-loud"])
    assert Some(**flag_values(told, Some)) == Some(1, 0.5, "a", False)
    assert "how long [s] (default: long enough)" in " ".join(parser.format_help().split())


def test_none_is_written_as_the_unset_value_and_read_back() -> None:
    assert to_plain(Some()) == {"count": 3, "length": -1.0, "kind": "a", "loud": True}
    for each in (Some(), Some(length=0.0), Some(length=1.5)):
        assert Some(**{name: from_plain(Some, name, value) for name, value in to_plain(each).items()}) == each


def test_options_need_neither_torch_nor_rclpy() -> None:
    code = "import sys, timar_ros.streaming.sampling_options; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "rclpy", "numpy"} & set(loaded)


def test_stream_info_has_a_field_for_every_option() -> None:
    assert set(OPTIONS) <= set(typestore().types["timar_ros/msg/StreamInfo"].__dataclass_fields__)


def test_rolling_mode_guides_a_joint_head_more_and_a_replay_knows_it() -> None:
    joint = TimarConfig(head="joint", guidance=2.0)
    assert PipelineOptions().guidance_for(joint) == 2.0
    rolling = PipelineOptions(mode="rolling")
    assert rolling.guidance_for(joint) == 3.0
    assert rolling.guidance_for(dataclasses.replace(joint, guidance=1.0)) == 1.0  # off stays off
    assert rolling.guidance_for(dataclasses.replace(joint, head="frame")) == 2.0
    assert dataclasses.replace(rolling, guidance=1.5).guidance_for(joint) == 1.5
    told = info_of(resolve_model("timar-mini"), rolling)
    assert told["guidance"] == 3.0
    assert PipelineOptions(**options_from(SimpleNamespace(**told))).guidance == 3.0


def test_the_planning_lead_has_one_default() -> None:
    default = PipelineOptions().planning_lead
    assert inspect.signature(TurnBuilder).parameters["planning_lead"].default == default
    assert GraphOptions().planning_lead == default
    nodes = {spec.name: spec.parameters for spec in describe(GraphOptions(planning_lead=0.4))}
    assert nodes["turn_segmenter"]["planning_lead"] == nodes["timar_inference"]["planning_lead"] == 0.4


def test_the_crossover_ends_at_a_fourth_of_the_motion_rate() -> None:
    assert OPTIONS["head_crossover"].metadata["high"] == MOTION_RATE / 4


def test_a_node_parameter_stands_for_every_live_option() -> None:
    pytest.importorskip("rclpy")
    from timar_ros.node_parts.inference_parameters import PARAMETERS
    from timar_ros.ros.parameters import option_values

    declared = {parameter.name: parameter for parameter in PARAMETERS}
    live = {name for name, item in OPTIONS.items() if item.metadata["live"]}
    assert set(OPTIONS) - live == {"engine", "normalising"}
    values = option_values(PipelineOptions, lambda name: declared[name].default)
    assert set(values) == live
    assert PipelineOptions(**values) == PipelineOptions()
    for name in live:
        assert declared[name].fault(declared[name].default) is None


@pytest.mark.parametrize("command", ["generate", "replay", "bench", "evaluate", "up", "demo"])
def test_commands_spell_options_as_their_fields(command: str) -> None:
    """An option of the pipeline has its field's name wherever a command takes it, and nothing else sets it."""
    parsers = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    actions = {action.dest: action for action in parsers.choices[command]._actions}
    taken = set(actions) & set(OPTIONS)
    expected = {"bench": {"context_policy"}}.get(command, {"mode", "seed", "planning_lead"})
    assert expected <= taken
    for name in taken:
        assert actions[name].option_strings[0] == f"--{name.replace('_', '-')}"
    pairs = {"policy", "steps", "history", "open_history", "iterations", "seam_frames", "rate"}
    assert not pairs & set(actions)
