"""Advice for a complaint on `/diagnostics`: one short sentence for each kind of the nodes' messages."""

from __future__ import annotations

import re

_LOG = "read the node's log"

_ADVICE = (
    (r"turns failed.*out of memory", "free memory of the GPU, or use a smaller model, another dtype or device cpu"),
    (r"raise \w|: use |; use |: see |: play the bag|set use_sim_time", ""),  # the message itself says what to do
    (r"^VMC: ", "start the receiver, or correct vmc_host and vmc_port"),
    (r"not answer|no diagnostics|no report", "see whether its process runs and the machine has time for it"),
    (r"waiting for .*stream_info", "bring timar_inference up: it publishes stream_info"),
    (r"waiting for .*joint_states", "start the robot's driver, or name its joints as the profile does"),
    (r"waiting for .*agent/motion", "look at timar_inference: it makes no motion"),
    (r"waiting for .*turns", "look at turn_segmenter and at the source of the sound"),
    (r"waiting for .*joint_trajectory", "look at retarget: it sends no commands"),
    (r"waiting for", "see whether somebody publishes it: timar status shows the nodes"),
    (r"another clock", "play the bag with --clock and set use_sim_time, or use bag_player"),
    (r"too slow: .* turns dropped", "use a smaller model, a GPU, fewer sampling_steps or a longer hop"),
    (r"too slow|no node answers", "play at a lower speed, or give the machine less to do"),
    (r"turns failed", _LOG),
    (r"joint_states: positions", "mend the driver of these joints: it sends NaN"),
    (r"joint_states", "start the robot's driver: where the head is was not known"),
    (r"rejected|refused|not followed|not played", "mend the sender of this topic: docs/reliability.md"),
    (r"rising: .*(foreign_clocks|clock_jumps)", "set the clocks of the sender and of this machine: docs/deployment.md"),
    (r"rising|audio was lost|lost samples", "look at the network and at the load of the machine"),
    (r"came too late", "send the sound earlier, or raise playback_delay"),
    (r"microphone|loudspeaker", "plug the device in; the node takes it up again (`timar audio devices`)"),
    (r"clock stepped|held up", "nothing, if it was once; else look at the load and at the time service"),
    (r"not finite|out of range", "mend the sender of agent/motion"),
    (r"writing|the disk|agent\.wav|wav ends|file", "free space on the disk, or write elsewhere"),
    (r"no stamps", "let the driver stamp its messages"),
    (r"not seen|not tracked|no face is seen|is gone", "check the sensor and the name of its frame"),
    (r"offset|anti-phase|clip|channel|silen|quiet|loud", "check the microphone's cable, gain and `channel`"),
    (r"cannot ", "mend what the message names, then configure the node again"),
    (r"state ", "bring it up: `ros2 lifecycle set NODE configure`, then `activate`"),
    (r" here, but ", "give both nodes the same value"),
    (r"missing", "start it, or say with --without that it runs nowhere"),
)


def advice(message: str) -> str:
    """Advice for a node's message; empty if the message contains it.

    A message that no rule knows gets the advice to read the node's log.
    """
    for pattern, words in _ADVICE:
        if re.search(pattern, message):
            return words
    return _LOG


def complaint(name: str, message: str) -> str:
    """One line with the node, the fault and the advice."""
    words = advice(message)
    said = " ".join(message.split())
    return f"{name}: {said} ({words})" if words else f"{name}: {said}"
