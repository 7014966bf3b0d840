"""Speed of a conversation's turns: the cached engine and the reference implementation in one run, equality first."""

from __future__ import annotations

import copy
import dataclasses
import math
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timar_ros.errors import UserError
from timar_ros.model import Timar
from timar_ros.model.packing import packed
from timar_ros.model.precision import INT8, pick_dtype
from timar_ros.model.speech_encoder import frame_window
from timar_ros.streaming.batch import ConversationBatch, Motion, TurnData
from timar_ros.streaming.engine.cached import CachedEngine

EXACT = 1e-4
"""Largest allowed absolute difference of fp32 from the oracle, in motion and in conditioning."""

MINIMUM_TURNS = 12


@dataclasses.dataclass(frozen=True)
class BenchmarkRow:
    """One engine configuration's measurements. Times in seconds per turn; all conversations of the row share a turn."""

    size: str
    dtype: str
    device: str
    policy: str
    conversations: int
    max_abs_error: float  # of motion and conditioning against the fp32 oracle, over all turns
    relative_error_z: float  # |z - oracle's z| / |oracle's z|, Frobenius, over all turns
    relative_error_motion: float
    oracle_p50_s: float  # the fp32 oracle, one conversation after another
    critical_p50_s: float  # turn complete -> motion
    critical_p95_s: float
    critical_p99_s: float
    critical_max_s: float
    idle_p50_s: float  # work between turns
    idle_mean_s: float  # its mean: the stepped policy works in one turn of several
    speedup: float  # oracle_p50_s / critical_p50_s
    real_time_factor: float  # (mean critical + mean idle) / seconds a turn; below 1 keeps up
    peak_memory_mb: float  # weights, cache and work of the engine alone
    speech_s: float
    fusion_s: float
    head_s: float
    rest_s: float
    floor_mb: float  # bytes that the critical path must read: weights once, the cache once
    floor_gflop: float
    turns: int
    threads: int

    @property
    def exact(self) -> bool:
        """Whether the engine equals the oracle; lower precision states its error instead."""
        return self.dtype != "float32" or self.max_abs_error <= EXACT


def machine(device: torch.device) -> str:
    """The machine in a few words, for tables."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    name = found.group(1) if found else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def random_turn(model: Timar, seed: int) -> TurnData:
    """A turn of noise: the time of a turn does not depend on the speech."""
    rng, config = np.random.default_rng(seed), model.config
    user, agent = rng.standard_normal((2, config.turn_samples), dtype=np.float32)
    motion = rng.standard_normal((config.turn_frames, config.motion_width), dtype=np.float32)
    return TurnData(user, agent, 0.1 * motion)


def benchmark(
    oracle: Timar,
    size: str,
    dtype: str = "float32",
    policy: str = "sliding",
    conversations: int = 1,
    turns: int = MINIMUM_TURNS,
    progress: Callable[[], None] = lambda: None,
) -> BenchmarkRow:
    """Measure one configuration of the engine against the oracle in turn, on full windows.

    :param oracle: the model in fp32, on the device to measure.
    :param size: the model's name in the row.
    :param dtype: ``float32``, ``bfloat16``, ``float16``, ``int8`` or ``auto``.
    :param turns: how many turns are timed, at least 12.
    :param progress: called after every turn.
    :raises UserError: when the model has no cached engine, or the number of turns is too small.
    """
    if turns < MINIMUM_TURNS:
        raise UserError(f"--turns {turns}: percentiles need at least {MINIMUM_TURNS}")
    if not CachedEngine.serves(oracle):
        raise UserError(
            "this model's attention is not causal or it has a decoder: there is no cached engine to measure"
        )
    chosen = pick_dtype(dtype, oracle.device, oracle.config)
    model = oracle if chosen == torch.float32 else copy.deepcopy(oracle).to(chosen)
    if oracle.device.type == "cpu":
        model = packed(model, int8=dtype == INT8)
    options: dict[str, Any] = {"seed": 0, "context_policy": policy}
    batch = ConversationBatch(model, conversations, **options)
    # The oracle computes its conversations one after the other; the time of one represents the others.
    reference = ConversationBatch(oracle, 1, engine="oracle", **options)
    errors = _Errors()
    window = oracle.config.context_turns
    memory = _Memory(oracle.device, shared=0 if model is oracle else _weight_bytes(oracle))
    for number in range(window):  # equality first, at every length of history
        data = _turn(oracle, number, conversations)
        motion = batch.step(data)[0]
        batch.prepare()
        expected = reference.step(data[:1])[0]
        errors.add(motion, expected, batch, reference)
        progress()
    memory.restart()
    slow, critical, idle = [], [], []
    for number in range(window, window + turns):
        data = _turn(oracle, number, conversations)
        motion, seconds = _timed(lambda: batch.step(data), oracle.device)  # noqa: B023 (called at once)
        critical.append(seconds)
        idle.append(_timed(batch.prepare, oracle.device)[1])
        memory.sample()
        expected, seconds = _timed(lambda: reference.step(data[:1]), oracle.device)  # noqa: B023
        slow.append(seconds)
        errors.add(motion[0], expected[0], batch, reference)
        progress()
        memory.restart()
    speech, fusion, head = _parts(batch, model)
    oracle_p50, critical_p50 = float(np.median(slow)), float(np.median(critical))
    flop, read = floor(oracle, conversations, chosen.itemsize, 1 if dtype == INT8 else chosen.itemsize)
    return BenchmarkRow(
        size=size,
        dtype=INT8 if dtype == INT8 else str(chosen).removeprefix("torch."),
        device=str(oracle.device),
        policy=policy,
        conversations=conversations,
        max_abs_error=errors.largest,
        relative_error_z=errors.relative("z"),
        relative_error_motion=errors.relative("motion"),
        oracle_p50_s=oracle_p50 * conversations,
        critical_p50_s=critical_p50,
        critical_p95_s=float(np.percentile(critical, 95)),
        critical_p99_s=float(np.percentile(critical, 99)),
        critical_max_s=max(critical),
        idle_p50_s=float(np.median(idle)),
        idle_mean_s=float(np.mean(idle)),
        speedup=oracle_p50 * conversations / critical_p50,
        real_time_factor=float(np.mean(critical) + np.mean(idle)) / model.config.turn_seconds,
        peak_memory_mb=memory.peak / 1e6,
        speech_s=speech,
        fusion_s=fusion,
        head_s=head,
        rest_s=max(0.0, critical_p50 - speech - fusion - head),
        floor_mb=read / 1e6,
        floor_gflop=flop / 1e9,
        turns=turns,
        threads=torch.get_num_threads(),
    )


def floor(model: Timar, conversations: int, cached_bytes: int = 4, weight_bytes: int = 4) -> tuple[float, float]:
    """Least work of the critical path at a full window: ``(FLOPs, bytes read)``.

    Two FLOPs per weight and input row, the attention's products, and one read of each weight and each cached value.
    Convolutions of the speech encoder count their weights once per output frame.

    :param cached_bytes: bytes of a cached key or value; ``weight_bytes`` of a weight.
    """
    config, frames = model.config, model.config.turn_frames
    rows = conversations * config.turn_tokens
    width, depth = config.encoder_width, len(model.encoder_blocks)
    block = sum(p.numel() for p in model.encoder_blocks[0].parameters())
    tokens = config.context_turns * config.turn_tokens
    flop = 2.0 * rows * block * depth + 4.0 * rows * tokens * width * depth
    if config.diffusion:
        head = sum(p.numel() for p in model.diffloss.parameters())
        flop += 2.0 * conversations * frames * config.sampling_steps * head
    flop += 2 * conversations * _speech_flop(model)
    cached = 2.0 * depth * conversations * (tokens - config.turn_tokens) * width * cached_bytes
    return flop, weight_bytes * sum(p.numel() for p in model.parameters()) + cached


def _speech_flop(model: Timar) -> float:
    """FLOPs of one speaker's speech in one turn, without the positional convolution (under a hundredth of them)."""
    encoder: Any = model.speech_encoder
    config, samples, frames, flop = encoder.config, model.config.turn_samples, model.config.turn_frames, 0.0
    windows, window = 1, frame_window(config, samples, frames)
    if window is not None:
        windows, samples = frames, window[0]
    channels = 1
    for out, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
        flop += 2.0 * windows * samples * channels * out * kernel
        channels = out
    weights = sum(p.numel() for p in encoder.encoder.layers.parameters())
    return flop + 2.0 * frames * weights


def _turn(model: Timar, number: int, conversations: int) -> list[TurnData | None]:
    return [random_turn(model, 1000 * number + row) for row in range(conversations)]


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    out = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return out, time.perf_counter() - start


@torch.inference_mode()
def _parts(batch: ConversationBatch, model: Timar, rounds: int = 5) -> tuple[float, float, float]:
    """Median seconds of a turn's speech encoding, fusion and head, each measured separately with a turn's shapes."""
    config, count = model.config, len(batch)
    speech = torch.randn(2 * count, config.turn_samples, device=model.device)
    tokens = torch.randn(count, 1, config.turn_tokens, config.token_width, device=model.device, dtype=model.dtype)
    masked = torch.zeros(count, config.turn_tokens, dtype=torch.bool, device=model.device)
    frames = count * config.turn_frames
    z = torch.randn(frames, config.encoder_width, device=model.device, dtype=model.dtype)
    noise = torch.randn(config.sampling_steps + 1, frames, config.motion_width, device=model.device)
    work: Sequence[Callable[[], Any]] = (
        lambda: model.encode_speech(speech),
        lambda: batch.engine.condition(range(count), tokens, masked),
        lambda: model.diffloss.sample(z, (noise[0], noise[1:])) if config.diffusion else model.mlp_head(z),
    )
    speech_s, fusion_s, head_s = (
        float(np.median([_timed(each, model.device)[1] for _ in range(rounds)])) for each in work
    )
    return speech_s, fusion_s, head_s


class _Errors:
    """Differences of the engine's motion and conditioning from the oracle's."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._squares = {"z": [0.0, 0.0], "motion": [0.0, 0.0]}

    def add(
        self, motion: Motion | None, expected: Motion | None, batch: ConversationBatch, reference: ConversationBatch
    ) -> None:
        for name, ours, theirs in (
            ("motion", motion, expected),
            ("z", batch.conditioning(0), reference.conditioning(0)),
        ):
            assert ours is not None and theirs is not None
            difference = ours.astype(np.float64) - theirs
            self.largest = max(self.largest, float(np.abs(difference).max()))
            self._squares[name][0] += float((difference**2).sum())
            self._squares[name][1] += float((theirs.astype(np.float64) ** 2).sum())

    def relative(self, name: str) -> float:
        difference, norm = self._squares[name]
        return math.sqrt(difference / norm)


class _Memory:
    """Peak memory in bytes between :meth:`restart` and :meth:`sample`; on Linux, of the process by its resident set."""

    def __init__(self, device: torch.device, shared: float) -> None:
        self.device, self.shared, self.peak = device, shared, 0.0

    def restart(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def sample(self) -> None:
        if self.device.type == "cuda":
            peak = float(torch.cuda.max_memory_allocated(self.device))
        else:
            try:
                status = Path("/proc/self/status").read_text(encoding="ascii")
            except OSError:
                return
            found = re.search(r"VmHWM:\s*(\d+) kB", status)
            peak = float(found.group(1)) * 1024 if found else 0.0
        self.peak = max(self.peak, peak - self.shared)


def _weight_bytes(model: Timar) -> float:
    return float(sum(p.numel() * p.element_size() for p in model.parameters()))
