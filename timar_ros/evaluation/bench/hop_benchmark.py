"""Speed of rolling mode's hops: the cached engine, compared with the oracle's five conversations in the same run."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch

from timar_ros.errors import UserError
from timar_ros.evaluation.bench.benchmark import EXACT
from timar_ros.model import Timar
from timar_ros.model.packing import packed
from timar_ros.model.precision import INT8, pick_dtype
from timar_ros.streaming.engine.cached import CachedEngine
from timar_ros.streaming.rolling import Hop, RollingBatch
from timar_ros.streaming.sampling_options import PipelineOptions

MINIMUM_HOPS = 12


@dataclasses.dataclass(frozen=True)
class HopRow:
    """One engine configuration's measurements. Times in seconds per hop; all conversations of the row share a hop."""

    size: str
    dtype: str
    device: str
    policy: str
    conversations: int
    hop: float  # [s]
    max_abs_error: float  # of motion against the fp32 oracle, over all lengths of history
    ahead_p50_s: float  # hop over -> motion, the agent's speech ahead
    ahead_p95_s: float
    late_p50_s: float  # the same, the agent's speech not ahead
    late_p95_s: float
    idle_mean_s: float  # work between hops
    real_time_factor: float  # (mean of a hop with speech ahead + mean idle) / hop; below 1 keeps up
    hops: int  # timed with and without speech ahead, each
    threads: int

    @property
    def exact(self) -> bool:
        """Whether the engine equals the oracle; lower precision states its error instead."""
        return self.dtype != "float32" or self.max_abs_error <= EXACT


def benchmark_hops(
    oracle: Timar,
    size: str,
    dtype: str = "float32",
    policy: str = "stepped",
    conversations: int = 1,
    hops: int = MINIMUM_HOPS,
    hop: float = PipelineOptions.hop,
    progress: Callable[[], None] = lambda: None,
) -> HopRow:
    """Run the oracle until its window slides, and the engine for as long plus the timed hops, on random speech.

    :param oracle: the model in fp32, on the device to measure.
    :param size: the model's name in the row.
    :param dtype: as of :func:`timar_ros.evaluation.bench.benchmark.benchmark`.
    :param hops: how many hops are timed, with and without speech ahead each; at least 12.
    :param hop: length of a hop [s].
    :param progress: called after every hop, :func:`hops_in_all` times.
    :raises UserError: when the model has no cached engine, the hop does not divide its turn, or ``hops`` is too small.
    """
    if hops < MINIMUM_HOPS:
        raise UserError(f"--turns {hops}: percentiles need at least {MINIMUM_HOPS}")
    if not CachedEngine.serves(oracle):
        raise UserError(
            "this model's attention is not causal or it has a decoder: there is no cached engine to measure"
        )
    chosen = pick_dtype(dtype, oracle.device, oracle.config)
    model = oracle if chosen == torch.float32 else copy.deepcopy(oracle).to(chosen)
    if oracle.device.type == "cpu":
        model = packed(model, int8=dtype == INT8)
    frames = round(hop * oracle.config.motion_rate)
    margin = round(PipelineOptions.hop_margin * oracle.config.motion_rate)
    margin = min(margin, oracle.config.turn_frames - frames)

    def new_batch(of: Timar, count: int, engine: str) -> RollingBatch:
        return RollingBatch(
            of, count, hop_frames=frames, margin_frames=margin, seed=0, context_policy=policy, engine=engine
        )

    batch, reference = new_batch(model, conversations, "cached"), new_batch(oracle, 1, "oracle")
    equal = _equality_hops(oracle, batch.grids)
    largest = 0.0
    for number in range(equal):  # equality first, at every length of history, with and without speech ahead
        data = [_random_hop(batch, number, row, ahead=number % 3 > 0) for row in range(conversations)]
        motion, expected = batch.step(data)[0], reference.step(data[:1])[0]
        batch.prepare()
        assert motion is not None
        assert expected is not None
        largest = max(largest, float(np.abs(motion.astype(np.float64) - expected).max()))
        progress()
    times: dict[str, list[float]] = {"ahead": [], "late": [], "idle": []}
    for number in range(equal, equal + 2 * hops):
        ahead = number < equal + hops
        data = [_random_hop(batch, number, row, ahead) for row in range(conversations)]
        times["ahead" if ahead else "late"].append(_seconds(lambda: batch.step(data), model))  # noqa: B023 (at once)
        idle = _seconds(batch.prepare, model)
        if ahead:
            times["idle"].append(idle)
        progress()
    return HopRow(
        size=size,
        dtype=INT8 if dtype == INT8 else str(chosen).removeprefix("torch."),
        device=str(oracle.device),
        policy=policy,
        conversations=conversations,
        hop=hop,
        max_abs_error=largest,
        ahead_p50_s=float(np.median(times["ahead"])),
        ahead_p95_s=float(np.percentile(times["ahead"], 95)),
        late_p50_s=float(np.median(times["late"])),
        late_p95_s=float(np.percentile(times["late"], 95)),
        idle_mean_s=float(np.mean(times["idle"])),
        real_time_factor=float(np.mean(times["ahead"]) + np.mean(times["idle"])) / hop,
        hops=hops,
        threads=torch.get_num_threads(),
    )


def hops_in_all(model: Timar, hops: int, hop: float) -> int:
    """How many hops :func:`benchmark_hops` runs."""
    return _equality_hops(model, round(model.config.turn_seconds / hop)) + 2 * hops


def _equality_hops(model: Timar, grids: int) -> int:
    return (model.config.context_turns + 2) * grids


def _random_hop(batch: RollingBatch, number: int, row: int, ahead: bool) -> Hop:
    rng, config = np.random.default_rng([number, row]), batch.batch.model.config
    samples = batch.hop_frames * config.turn_samples // config.turn_frames
    user, agent = rng.standard_normal((2, samples), dtype=np.float32)
    motion = 0.1 * rng.standard_normal((batch.hop_frames, config.motion_width), dtype=np.float32)
    known = rng.standard_normal(batch.ahead_samples, dtype=np.float32) if ahead else None
    return Hop(user, agent, motion, known, number)


def _seconds(work: Callable[[], object], model: Timar) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    start = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start
