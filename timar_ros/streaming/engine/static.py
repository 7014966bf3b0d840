"""A turn of every conversation of a batch as tensor work of fixed shapes, and its CUDA graph.

A turn of the full-size model is some thousand small kernels, which take longer to launch than to run. A graph launches
them at once. Set the environment variable ``TIMAR_NO_GRAPHS=1`` to launch them one by one instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import torch
from torch import Tensor

from timar_ros.files.reading import first_line
from timar_ros.model.tokens import agent_motion_slice
from timar_ros.motion import HEAD
from timar_ros.streaming.engine.cached import CachedEngine

log = logging.getLogger(__name__)

SWITCH = "TIMAR_NO_GRAPHS"

Tensors = tuple[Tensor, ...]


def graphs_wanted(device: torch.device) -> bool:
    """Whether turns on this device should run as CUDA graphs."""
    return device.type == "cuda" and os.environ.get(SWITCH, "0") in ("", "0")


class StaticTurn:
    """One turn of all B conversations, of histories of any length, in one round of decoding.

    :param branches: 2 where guidance needs the branch without the user as well, else 1.
    """

    def __init__(self, engine: CachedEngine, branches: int) -> None:
        self.engine = engine
        self.branches = branches
        wanted = graphs_wanted(engine.model.device)
        self._run: Callable[..., Tensors] = GraphedCall(self.compute) if wanted else self.compute

    def __call__(self, *inputs: Tensor) -> Tensors:
        """Outputs of :meth:`compute`, valid until the next call."""
        return self._run(*inputs)

    def compute(
        self,
        user: Tensor,
        heard: Tensor,
        agent: Tensor,
        motion: Tensor,
        lengths: Tensor,
        initial: Tensor,
        added: Tensor,
        style: Tensor,
        movement: Tensor,
        shown: Tensor,
        liveliness: Tensor,
        *known: Tensor,
    ) -> Tensors:
        """Tokens ``[B, 4F + 10, d]``, conditioning ``[B, F, D]`` and frames ``[B, F, 56]``, drawn and expected.

        :param user: normalised samples ``[B, N]``; ``fake_latent`` replaces rows where ``heard [B]`` (boolean) is
            False.
        :param agent: normalised samples ``[B, N]``.
        :param motion: the user's ``[B, F, 56]``, NaN where untracked.
        :param lengths: turns of history ``[B]``, all of them encoded.
        :param initial: noise ``[B, F, 56]``, and ``added [S, B, F, 56]``.
        :param style: ``[2]``, temperature and strength of guidance: tensors, so that a graph serves every style.
        :param movement: noise ``[B, K, 3]`` of the joint head, poses ``shown [B, SHOWN, 3]`` before the turn and the
            logarithm of the ``liveliness [B]``: see :meth:`timar_ros.model.timar.Timar.sample_head`; other heads ignore
            them.
        :param known: poses ``[B, F, 3]`` of the turn that are known, and their gains ``[B, 3, K, F]``; or nothing.
        """
        model, count = self.engine.model, len(user)
        speech = model.encode_speech(torch.cat((user, agent)))
        listened = torch.where(heard.view(-1, 1, 1), speech[:count], model.fake_latent)
        spoken = speech[count:]
        tokens = model.assemble(listened, model.encode_motion(motion), spoken, torch.zeros_like(spoken))
        masked = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        masked[:, agent_motion_slice(model.config.turn_frames)].fill_(True)
        both = (tokens,) if self.branches == 1 else (tokens, model.without_user(tokens))
        z = self.engine.condition_all(torch.stack(both, 1), masked, lengths)
        frames, noise = z.transpose(1, 2).flatten(0, 1), (initial.flatten(0, 1), added.flatten(1, 2))
        drawn = model.sample_motion(frames, noise, style[0], style[1])
        sampled, expected = drawn.frames.view(initial.shape), drawn.expected.view(initial.shape)
        if model.config.head == "joint":
            poses = model.sample_head(
                z, shown, liveliness, style[0] * movement, style[1], (known[0], known[1]) if known else None
            )
            sampled, expected = (torch.cat((each[..., : HEAD.start], poses), -1) for each in (sampled, expected))
        return tokens, z[:, 0], sampled, expected


class GraphedCall:
    """A function of tensors whose shapes never change, recorded at its first call and replayed from then on.

    If recording fails (a driver or a library does not allow it), later calls run the function directly.
    """

    def __init__(self, function: Callable[..., Tensors]) -> None:
        self.function = function
        self.inputs: Tensors = ()
        self.outputs: Tensors = ()
        self.replay: Callable[[], None] | None = None
        self.failed = False

    def __call__(self, *values: Tensor) -> Tensors:
        """The function's outputs, valid until the next call."""
        if self.replay is None and not self.failed:
            self._record(values)
        if self.replay is None:
            return self.function(*values)
        for fixed, value in zip(self.inputs, values, strict=True):
            fixed.copy_(value, non_blocking=True)
        self.replay()
        return self.outputs

    def _record(self, values: Tensors) -> None:
        inputs = tuple(value.clone() for value in values)
        try:
            self.replay, self.outputs = cuda_graph(self.function, inputs)
            self.inputs = inputs
        except RuntimeError as error:
            self.failed = True
            reason = first_line(error)
            log.warning("no CUDA graph (%s): turns run kernel by kernel; set %s=1 to skip the attempt", reason, SWITCH)


def cuda_graph(function: Callable[..., Tensors], inputs: Tensors) -> tuple[Callable[[], None], Tensors]:
    """A callable that replays a function on exactly these inputs, and the outputs that it writes each time.

    :raises RuntimeError: where the function or the device cannot be recorded.
    """
    with torch.cuda.device_of(inputs[0]):  # type: ignore[no-untyped-call]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries initialise themselves at their first calls
                function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Only the calls of this thread count: another thread may allocate at the same time.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = function(*inputs)
    return graph.replay, outputs
