"""The parameters of `timar_inference`, and the pipeline options derived from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timar_ros.ros.parameters import Parameter, option_parameters, option_values
from timar_ros.streaming.sampling_options import PipelineOptions

if TYPE_CHECKING:
    from timar_ros.ros.parameter_node import ParameterNode

PARAMETERS = (
    Parameter("model", "", "model folder or file; empty: the package's model, or an UNTRAINED one"),
    Parameter("speech", "", "folder or hub name of the speech encoder, if the model contains none"),
    Parameter("device", "auto", "cpu, cuda, cuda:1 … or auto"),
    Parameter("dtype", "float32", "number type", choices=("float32", "bfloat16", "float16", "int8", "auto")),
    Parameter("torch_threads", 0, "CPU threads of torch; 0: one for a small model, else torch's own choice", 0, 1024),
    Parameter("namespaces", [""], "namespaces of the conversations that this process serves; empty: its own only"),
    Parameter("queue_depth", 2, "most waiting turns of a conversation; one more drops the oldest", 1, 100),
    Parameter("warm_up_turns", 3, "artificial turns before the node is ready", 0, 100),
    Parameter("state_file", "", "file (.npz) that keeps the conversation over restarts; empty: none"),
    Parameter("latency_log", "", "CSV file with a line of times for every turn; empty: none"),
    *option_parameters(PipelineOptions),
)  # fmt: skip


def pipeline_options(node: ParameterNode) -> PipelineOptions:
    """The pipeline's options from a node's parameters."""
    return PipelineOptions(**option_values(PipelineOptions, node.value))
