"""What each node and command may do on the network, as the policy file of SROS2 (SECURITY.md).

``python -m timar_ros.graph.security_policy > config/security/policy.xml``; ``--namespace robot1`` for a graph there,
``--command-topic /head_controller/joint_trajectory`` for the topic that `retarget` is remapped to.

A test starts every node and command and compares: nothing that they have is missing here, nothing is granted beyond it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

ENCLAVES = "/timar"
"""What the names of all enclaves begin with; each node and command has one of its own name below it."""

PARAMETER_SERVICES = (
    "describe_parameters", "get_parameter_types", "get_parameters", "list_parameters", "set_parameters",
    "set_parameters_atomically",
)  # fmt: skip
LIFECYCLE_SERVICES = (
    "change_state", "get_available_states", "get_available_transitions", "get_state", "get_transition_graph",
)  # fmt: skip
TYPE_SERVICES = ("get_type_description",)
"""Jazzy and later."""

CONVERSATION = (
    "user/audio", "agent/audio", "agent/audio_out", "user/motion", "agent/motion", "agent/voice_timing", "turns",
    "stream_info", "retarget_info", "joint_trajectory", "joint_states",
)  # fmt: skip


@dataclass(frozen=True)
class Rights:
    """Names of topics and services: relative to the namespace, private (``~/``) or absolute.

    ``lifecycle``: a node of the graph, with the endpoints that all of them have.
    """

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    serve: tuple[str, ...] = ()
    call: tuple[str, ...] = ()
    lifecycle: bool = True

    def whole(self) -> Rights:
        """With what every ROS 2 node, and every node of the graph, has besides."""
        services = (*PARAMETER_SERVICES, *TYPE_SERVICES, *(LIFECYCLE_SERVICES if self.lifecycle else ()))
        publish = ("/rosout", "/parameter_events", *(("/diagnostics", "~/transition_event") if self.lifecycle else ()))
        return Rights(
            tuple(dict.fromkeys((*self.publish, *publish))),
            tuple(dict.fromkeys((*self.subscribe, "/clock"))),
            (*self.serve, *(f"~/{service}" for service in services)),
            self.call,
            self.lifecycle,
        )


def _services_of(nodes: Iterable[str], *services: str) -> tuple[str, ...]:
    return tuple(f"{node}/{service}" for node in nodes for service in services)


NODE_NAMES = {"say": "head_client"}
"""Names of nodes that differ from those of their enclaves."""

GRAPH = (
    "audio_source", "turn_segmenter", "timar_inference", "retarget", "head_simulator", "audio_sink", "live_page",
    "recorder", "bag_player", "face_tracker", "avatar_bridge",
)  # fmt: skip
"""Nodes that `timar up`, `timar demo` and `timar live` start and bring up."""

_SOURCE = Rights(
    publish=("user/audio", "agent/audio", "user/motion", "/clock"),
    subscribe=("stream_info", "turns", "agent/motion", "joint_trajectory"),
)

RIGHTS: dict[str, Rights] = {
    "audio_source": _SOURCE,
    "turn_segmenter": Rights(
        publish=("turns", "agent/voice_timing"),
        subscribe=("user/audio", "agent/audio", "user/motion", "stream_info", "cancel"),
    ),
    "timar_inference": Rights(
        publish=("agent/motion", "stream_info", "cancel"),
        subscribe=("turns",),
        serve=("~/reset", "~/cancel", "~/set_style"),
    ),
    "retarget": Rights(
        publish=(
            "joint_trajectory", "joint_commands", "joint_states", "mouth", "eyelids", "commands", "head_pose",
            "retarget_info",
        ),
        subscribe=(
            "agent/motion", "stream_info", "joint_states", "gaze/active", "gaze/joint_states", "gaze/target", "cancel",
        ),
        serve=("~/enable", "~/set_style"),
        call=("get_parameters",),
    ),
    "head_simulator": Rights(
        publish=("joint_states", "robot_description"),
        subscribe=("joint_trajectory", "commands", "head_pose"),
    ),
    "audio_sink": Rights(
        publish=("agent/audio_out",),
        subscribe=("agent/audio", "agent/voice_timing", "stream_info", "cancel"),
    ),
    "live_page": Rights(
        publish=("user/audio", "agent/audio"),
        subscribe=(
            "stream_info", "retarget_info", "robot_description", "user/audio", "agent/audio_out", "agent/motion",
            "user/motion", "turns", "joint_states", "cancel", "/diagnostics",
        ),
        call=(
            "timar_inference/reset", "timar_inference/cancel", "timar_inference/set_style", "retarget/set_style",
            "audio_source/change_state", "audio_source/get_state",
        ),
    ),
    "recorder": Rights(subscribe=("*", "/diagnostics")),
    "bag_player": _SOURCE,
    "audio_bridge": Rights(publish=("user/audio",), subscribe=("audio", "audio_info", "/humans/voices/*")),
    "head_bridge": Rights(publish=("user/motion",), subscribe=("user/head_pose", "/tf", "/tf_static")),
    "avatar_bridge": Rights(
        publish=("agent/blendshapes", "agent/mouth", "agent/facs"),
        subscribe=("stream_info", "cancel", "agent/motion"),
    ),
    "face_tracker": Rights(publish=("user/motion", "user/blendshapes"), subscribe=("image_raw",)),
    "partner_selector": Rights(
        publish=("user/audio", "user/motion", "partner_id", "gaze/target"),
        subscribe=("/humans/voices/*", "/humans/faces/*", "/tf", "/tf_static"),
        call=("timar_inference/reset",),
    ),
    "speech": Rights(
        publish=("agent/audio", "agent/speaking", "cancel"),
        subscribe=("say", "cancel", "agent/audio_out", "stream_info"),
    ),
    "barge_in": Rights(
        publish=("user/audio", "barge_in", "cancel"),
        subscribe=("microphone/audio", "agent/audio_out"),
        call=("timar_inference/cancel",),
    ),
    # Commands.
    "observer": Rights(
        subscribe=("turns", "agent/motion", "agent/audio_out", "stream_info", "/diagnostics"),
        call=_services_of(GRAPH, "change_state", "get_state"),
        lifecycle=False,
    ),
    "status": Rights(
        subscribe=("stream_info", "/diagnostics"),
        call=("*/get_state",),
        lifecycle=False,
    ),
    "say": Rights(
        publish=("agent/audio", "user/audio", "cancel"),
        subscribe=("stream_info", "agent/audio_out", "agent/motion", "cancel"),
        call=("timar_inference/cancel", "timar_inference/reset"),
        lifecycle=False,
    ),
}  # fmt: skip
"""By enclave: the nodes, and the commands `timar up`, `demo` and `live` (observer), `timar status` and `timar say`."""


def policy(
    namespace: str = "", renamed: Mapping[str, str] | None = None, rights: Mapping[str, Rights] | None = None
) -> str:
    """The policy file.

    :param namespace: of the graph.
    :param renamed: topics that are remapped, with their new names.
    :param rights: default: all of RIGHTS.
    """
    place = "/" + namespace.strip("/")
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<!-- What each node and command of timar_ros may do (SROS2, SECURITY.md).",
        "     Written by `python -m timar_ros.graph.security_policy`. -->",
        '<policy version="0.2.0">',
        "  <enclaves>",
    ]
    for name, node_rights in (rights or RIGHTS).items():
        lines += [
            f"    <enclave path={quoteattr(f'{ENCLAVES}/{name}')}>",
            "      <profiles>",
            f"        <profile ns={quoteattr(place)} node={quoteattr(NODE_NAMES.get(name, name))}>",
        ]
        whole = node_rights.whole()
        for kind, right, item, names in (
            ("topics", "publish", "topic", whole.publish),
            ("topics", "subscribe", "topic", whole.subscribe),
            ("services", "reply", "service", whole.serve),
            ("services", "request", "service", whole.call),
        ):
            if names:
                new = ((renamed or {}).get(each, each) for each in names)
                lines.append(f'          <{kind} {right}="ALLOW">')
                lines += [f"            <{item}>{escape(each)}</{item}>" for each in new]
                lines.append(f"          </{kind}>")
        lines += ["        </profile>", "      </profiles>", "    </enclave>"]
    return "\n".join([*lines, "  </enclaves>", "</policy>", ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the policy."""
    parser = argparse.ArgumentParser(
        prog="python -m timar_ros.graph.security_policy", description="SROS2's policy file"
    )
    parser.add_argument("--namespace", default="", help="namespace of the graph, such as robot1")
    parser.add_argument(
        "--command-topic", metavar="TOPIC", help="topic of the robot's controller, instead of retarget's own"
    )
    args = parser.parse_args(argv)
    topic = args.command_topic
    renamed = {} if topic is None else dict.fromkeys(("joint_trajectory", "commands", "head_pose"), topic)
    if topic is not None and "/" in topic:
        renamed["get_parameters"] = f"{topic.rpartition('/')[0]}/get_parameters"
    print(policy(args.namespace, renamed), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
