"""The parameters of `timar_inference`, and the pipeline's options that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timar_ros.nodes.parameters import Parameter

if TYPE_CHECKING:
    from timar_ros.nodes.parameter_node import ParameterNode
    from timar_ros.streaming.pipeline import PipelineOptions

PARAMETERS = (
    Parameter("model", "", "model folder or file; empty: the model that ships, or an UNTRAINED one"),
    Parameter("speech", "", "folder or hub name of the speech encoder, where the model has none of its own"),
    Parameter("device", "auto", "cpu, cuda, cuda:1 … or auto"),
    Parameter("dtype", "float32", "number type", choices=("float32", "bfloat16", "float16", "int8", "auto")),
    Parameter("torch_threads", 0, "CPU threads of torch; 0: torch's own choice", 0, 1024),
    Parameter("namespaces", [""], "conversations that this process serves, each a namespace; empty: its own only"),
    Parameter("mode", "reactive", "motion is made after a turn or before it", choices=("reactive", "anticipatory")),
    Parameter("playback_delay", -1.0, "motion for t is shown at t + this [s]; negative: found at warm-up", -1.0, 60.0),
    Parameter("queue_depth", 2, "turns of a conversation that may wait; one more drops the oldest", 1, 100),
    Parameter("warm_up_turns", 3, "made-up turns before the node is ready", 0, 100),
    Parameter("state_file", "", "the conversation is kept here (.npz) over restarts; empty: it is not kept"),
    Parameter("latency_log", "", "CSV file with a line of times for every turn; empty: none"),
    Parameter("seed", 0, "what the sampling noise comes from, with the turn's number", 0),
    Parameter("guidance", 1.0, "classifier-free guidance; 1: none", 0.0, 10.0),
    Parameter("temperature", 1.0, "multiplies the noise of sampling", 0.0, 10.0),
    Parameter("sampling_steps", 0, "diffusion steps; 0: the model's", 0, 1000),
    Parameter("context_seconds", 0.0, "length of the window [s]; 0: the model's longest", 0.0, 600.0),
    Parameter("context_policy", "sliding", "what is kept when the window is full", choices=("sliding", "stepped")),
    Parameter("mask_history_agent", True, "hide the agent's own past motion from the model, as in the paper"),
    Parameter("seams", True, "smooth the joint between one turn's motion and the next"),
)  # fmt: skip


def pipeline_options(node: ParameterNode) -> PipelineOptions:
    """The pipeline's options from a node's parameters; 0 stands for the model's own."""
    from timar_ros.streaming.pipeline import PipelineOptions

    names = ("seed", "guidance", "temperature", "context_policy", "mask_history_agent", "mode", "seams")
    return PipelineOptions(
        **{name: node.value(name) for name in names},
        sampling_steps=node.value("sampling_steps") or None,
        context_seconds=node.value("context_seconds") or None,
        playback_delay=node.value("playback_delay") if node.value("playback_delay") >= 0.0 else None,
    )
