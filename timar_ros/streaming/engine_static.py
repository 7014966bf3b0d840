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

from timar_ros.model.tokens import agent_motion_slice
from timar_ros.streaming.engine_cached import CachedEngine

log = logging.getLogger(__name__)

SWITCH = "TIMAR_NO_GRAPHS"

Tensors = tuple[Tensor, ...]


def graphs_wanted(device: torch.device) -> bool:
    """Whether turns on this device are to be graphs."""
    return device.type == "cuda" and os.environ.get(SWITCH, "0") in ("", "0")


class StaticTurn:
    """One turn of all B conversations, of histories of any length, in one round of decoding.

    :param guidance: strength; 1 needs no branch without the user.
    """

    def __init__(self, engine: CachedEngine, guidance: float, temperature: float) -> None:
        self.engine = engine
        self.guidance, self.temperature = guidance, temperature
        self._run: Callable[..., Tensors] = (
            GraphedCall(self.compute) if graphs_wanted(engine.model.device) else self.compute
        )

    def __call__(
        self,
        user: Tensor,
        heard: Tensor,
        agent: Tensor,
        motion: Tensor,
        lengths: Tensor,
        initial: Tensor,
        added: Tensor,
    ) -> Tensors:
        """Tokens ``[B, 4F + 10, d]``, conditioning ``[B, F, D]``, motion ``[B, F, 56]``, valid until the next call.

        :param user: normalised samples ``[B, N]``; what ``heard [B]`` (boolean) denies becomes ``fake_latent``.
        :param agent: normalised samples ``[B, N]``.
        :param motion: the user's ``[B, F, 56]``, NaN where untracked.
        :param lengths: turns of history ``[B]``, all of them encoded.
        :param initial: noise ``[B, F, 56]``, and ``added [S, B, F, 56]``.
        """
        return self._run(user, heard, agent, motion, lengths, initial, added)

    def compute(
        self,
        user: Tensor,
        heard: Tensor,
        agent: Tensor,
        motion: Tensor,
        lengths: Tensor,
        initial: Tensor,
        added: Tensor,
    ) -> Tensors:
        """The work itself; see :meth:`__call__`."""
        model, count = self.engine.model, len(user)
        speech = model.encode_speech(torch.cat((user, agent)))
        listened = torch.where(heard.view(-1, 1, 1), speech[:count], model.fake_latent)
        spoken = speech[count:]
        tokens = model.assemble(listened, model.encode_motion(motion), spoken, torch.zeros_like(spoken))
        masked = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        masked[:, agent_motion_slice(model.config.turn_frames)].fill_(True)
        both = (tokens,) if self.guidance == 1.0 else (tokens, model.without_user(tokens))
        z = self.engine.condition_all(torch.stack(both, 1), masked, lengths)
        frames = z.transpose(1, 2).flatten(0, 1)
        drawn = model.sample_motion(
            frames, (initial.flatten(0, 1), added.flatten(1, 2)), self.temperature, self.guidance
        )
        return tokens, z[:, 0], drawn.view(initial.shape)


class GraphedCall:
    """A function of tensors whose shapes never change, captured as a CUDA graph at its first call.

    Where capturing fails (a driver or a library that does not allow it), the function is called as it is from then on.
    """

    def __init__(self, function: Callable[..., Tensors]) -> None:
        self.function = function
        self.inputs: Tensors = ()
        self.outputs: Tensors = ()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.failed = False

    def __call__(self, *values: Tensor) -> Tensors:
        """The function's outputs, valid until the next call."""
        if self.graph is None and not self.failed:
            self._capture(values)
        if self.graph is None:
            return self.function(*values)
        for fixed, value in zip(self.inputs, values, strict=True):
            fixed.copy_(value, non_blocking=True)
        self.graph.replay()
        return self.outputs

    def _capture(self, values: Tensors) -> None:
        """Run the function thrice on a side stream, so that every library has set itself up, then record it."""
        self.inputs = tuple(value.clone() for value in values)
        try:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.function(*self.inputs)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.outputs = self.function(*self.inputs)
            self.graph = graph
        except RuntimeError as error:
            self.failed = True
            self.inputs = ()
            reason = str(error).strip().splitlines()[0]
            log.warning("no CUDA graph (%s): turns run kernel by kernel; set %s=1 to skip the attempt", reason, SWITCH)
