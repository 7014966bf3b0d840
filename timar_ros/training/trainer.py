"""The training loop, on Hugging Face Accelerate: the same on one CPU, one GPU, or many machines."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from timar_ros.baselines.dualtalk import DualTalk
from timar_ros.console import stderr
from timar_ros.distributed import process_count, without_gpu
from timar_ros.errors import UserError, require
from timar_ros.model import Timar
from timar_ros.model.diffusion import TRAINING_STEPS
from timar_ros.motion import MOTION_RATE, SAMPLES_PER_FRAME
from timar_ros.parallel import loading_processes
from timar_ros.training.dataset import StepSampler, TrainingClips, collate
from timar_ros.training.filterbank import fit_filterbank
from timar_ros.training.model_building import build_model, save_model, set_statistics
from timar_ros.training.objective import Objective
from timar_ros.training.run_config import TrainConfig
from timar_ros.training.run_state import Average, load_state, newest_state, save_state
from timar_ros.training.schedule import expected_total, learning_rate, total_steps, warmup_steps
from timar_ros.training.validation import Validation

log = logging.getLogger(__name__)
Report = Callable[[int, int, dict[str, float]], None]


class Trainer:
    """One run of a configuration; see :meth:`fit`.

    :param resume: continue from the newest checkpoint in the run's folder.
    :param skip: conversations to leave out (broken ones).
    :param preparing: called with (steps done, all steps) while the speech encoder is trained alone, before the run.
    :raises UserError: the folder holds a run already and ``resume`` is off, or the configuration is impossible here.
    """

    def __init__(
        self,
        config: TrainConfig,
        resume: bool = False,
        skip: frozenset[str] = frozenset(),
        preparing: Callable[[int, int], None] | None = None,
    ) -> None:
        accelerate = require("accelerate", "pip install 'timar_ros[train]'", "training")
        self.config, self.skip = config, skip
        options = config.optimiser
        self.accelerator = accelerate.Accelerator(cpu=without_gpu(), mixed_precision=options.precision)
        if options.seconds is not None and self.accelerator.num_processes > 1:
            raise UserError("optimiser.seconds is for one process: give several a number of steps")
        if self.accelerator.num_processes != process_count():
            raise UserError(
                f"{process_count()} processes were started, but they do not train together: "
                "start them with torchrun or accelerate launch, without a configuration for other hardware"
            )
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.run = Path(config.run.folder)
        newest = newest_state(self.run)
        if newest is not None and not resume:
            raise UserError(
                f"{self.run} holds a run already ({newest.name}): continue it with --resume, or choose another folder"
            )
        self.model: Timar | DualTalk = build_model(config)
        frames = self.model.config.turn_frames if isinstance(self.model, Timar) else round(MOTION_RATE)
        self.clips = TrainingClips(config, frames, TRAINING_STEPS, skip)
        if isinstance(self.model, Timar) and self.clips.frames > self.model.config.context_turns * frames:
            raise UserError(
                f"data.clip_seconds {config.data.clip_seconds} is longer than the model's window: "
                f"{self.model.config.context_seconds} s; make the clips shorter or model.context_seconds longer"
            )
        self.total = total_steps(options, len(self.clips))
        self.warmup = warmup_steps(options, len(self.clips))
        self.micro = options.micro_batch or max(1, options.batch_size // self.world)
        self.turn_frames, self.step, self.spent = frames, 0, 0.0
        device = self.accelerator.device
        self.model.to(device)
        if newest is None and self.accelerator.is_main_process:
            set_statistics(self.model, config, skip)
            self._fit_filterbank(preparing)
        self.accelerator.wait_for_everyone()
        self.optimiser = torch.optim.AdamW(
            _decay_groups(self.model, options.weight_decay), options.learning_rate, options.betas
        )
        self.average = Average(self.model, options.ema)
        if newest is not None:
            state = load_state(newest, self.model, self.average, self.optimiser)
            self.step, self.spent = int(state["step"]), float(state.get("spent", 0.0))
        self.objective = self.accelerator.prepare(Objective(self.model, options))
        if newest is None:
            # A distributed wrapper has just given every process the first process's weights.
            self.average = Average(self.model, options.ema)
        self.validation = Validation(config, frames, skip) if config.data.validation_split else None

    def fit(self, report: Report | None = None) -> dict[str, float]:
        """Train to the end (or to Ctrl-C, which saves first); returns the last metrics.

        :param report: called after every step with (steps done, all steps, metrics).
        :raises UserError: the loss is no longer finite; the message names the batch's clips.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        metrics: dict[str, float] = {}
        options = self.config.run
        tensorboard = self._tensorboard()
        batches = iter(self._loader())
        started, before = time.monotonic(), self.spent
        seconds = self.config.optimiser.seconds
        try:
            while self.step < self.total:
                metrics = self._one_step(batches)
                self.spent = before + time.monotonic() - started
                if seconds is not None and self.spent >= seconds:
                    self.total = self.step
                if report is not None:
                    report(self.step, self.total, metrics)
                last = self.step == self.total
                if self.accelerator.is_main_process and (last or self.step % options.log_every == 0):
                    self._write(tensorboard, metrics)
                if self.validation is not None and (last or self.step % options.validate_every == 0):
                    with self.average.applied(self.model):
                        found = self.validation.measure(self.model, self.accelerator)
                    metrics |= found
                    if self.accelerator.is_main_process:
                        self._write(tensorboard, found)
                        log.info("step %d: %s", self.step, ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
                if last or self.step % options.checkpoint_every == 0:
                    self.save()
        except KeyboardInterrupt:
            self.save()
            raise
        finally:
            if tensorboard is not None:
                tensorboard.close()
        return metrics

    def save(self) -> None:
        """A checkpoint to continue from, and the averaged model's folder ``model/``."""
        if not self.accelerator.is_main_process:
            return
        save_state(
            self.run,
            self.step,
            self.model,
            self.average,
            self.optimiser,
            {"total": self.total, "processes": self.world, "spent": self.spent},
            self.config.run.keep,
        )
        with self.average.applied(self.model):
            save_model(self.model, self.run / "model", self.config, step=self.step)

    def _loader(self) -> DataLoader[Any]:
        options = self.config.optimiser
        sampler = StepSampler(
            len(self.clips),
            options.batch_size,
            self.micro,
            self.total,
            self.config.seed,
            self.step,
            self.rank,
            self.world,
        )
        workers, lacking = loading_processes(self.config.data.workers)
        if lacking and not self.rank:
            stderr.print(lacking, markup=False, soft_wrap=True)
        return DataLoader(
            self.clips,
            batch_sampler=cast("Any", sampler),
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def _one_step(self, batches: Iterator[dict[str, Any]]) -> dict[str, float]:
        options, started = self.config.optimiser, time.perf_counter()
        parts = options.batch_size // (self.world * self.micro)
        loaded = [next(batches) for _ in range(parts)]
        names = [name for batch in loaded for name in batch.pop("name")]
        moved = [
            {k: torch.as_tensor(v).to(self.accelerator.device, non_blocking=True) for k, v in batch.items()}
            for batch in loaded
        ]
        # Dropout uses torch's global generator, which is therefore seeded at every step.
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) * self.world + self.rank)
        self.model.train()
        steps = self.total
        if options.seconds is not None:
            steps = expected_total(self.step, self.warmup, self.spent, options.seconds)
        rate = learning_rate(self.step, steps, self.warmup, options)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        count = self._sum(torch.stack([self._count(batch) for batch in moved]).sum())
        total, error = torch.zeros((), device=count.device), torch.zeros((), device=count.device)
        for index, batch in enumerate(moved):
            joined = index == parts - 1
            with nullcontext() if joined else self.accelerator.no_sync(self.objective):
                loss, mse, _ = self.objective(batch)
                # A distributed wrapper averages gradients over processes, and the loss is one sum over all of them.
                self.accelerator.backward(loss * self.world / count)
            total, error = total + loss.detach(), error + mse
        value, mse_value = float(self._sum(total) / count), float(self._sum(error) / count)
        if not math.isfinite(value):
            self._stop(value, names)
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), options.clip_norm))
        self.optimiser.step()
        self.step += 1
        self.average.update(self.model, self.step)
        seconds = time.perf_counter() - started
        return {"loss": value, "mse": mse_value, "gradient_norm": norm, "learning_rate": rate, "step_s": seconds}

    def _count(self, batch: dict[str, Tensor]) -> Tensor:
        """The number of frames that :class:`Objective` will count, known before any forward pass."""
        mask = batch["agent_mask"]
        if isinstance(self.model, DualTalk):
            return torch.tensor(float(mask.numel()), device=mask.device)
        draws = len(batch["timesteps"]) if self.model.config.diffusion else 1
        return mask.sum().float() * draws

    def _sum(self, value: Tensor) -> Tensor:
        return cast("Tensor", self.accelerator.reduce(value, "sum"))

    def _stop(self, value: float, names: list[str]) -> None:
        gathered = self.accelerator.gather_for_metrics(names, use_gather_object=True) if self.world > 1 else names
        (self.run / "stopped.json").write_text(
            json.dumps({"step": self.step, "loss": str(value), "clips": gathered}, indent=2) + "\n", encoding="utf-8"
        )
        raise UserError(
            f"the loss is {value} at step {self.step}: stopped before the weights took it; clips of the batch: "
            f"{', '.join(gathered[:8])}{' ...' if len(gathered) > 8 else ''} (all in {self.run / 'stopped.json'})"
        )

    def _fit_filterbank(self, progress: Callable[[int, int], None] | None) -> None:
        """Pre-train small speech encoders."""
        options = self.config.speech
        if not options.filterbank_steps or not options.trainable or options.weights or self.config.start:
            return
        sampler = StepSampler(len(self.clips), 4, 4, options.filterbank_steps, self.config.seed + 1, 0, 0, 1)
        loader: DataLoader[Any] = DataLoader(
            self.clips,
            batch_sampler=cast("Any", sampler),
            collate_fn=collate,
            num_workers=loading_processes(self.config.data.workers)[0],
        )
        samples = self.turn_frames * SAMPLES_PER_FRAME
        device = self.accelerator.device

        def turns() -> Iterator[Tensor]:
            for batch in loader:
                yield torch.cat((batch["user_speech"], batch["agent_speech"])).reshape(-1, samples).to(device)

        if isinstance(self.model, DualTalk):
            encoder = self.model.joint_encoder.audio_encoder1
        else:
            encoder = self.model.speech_encoder
        explained = fit_filterbank(
            encoder,
            turns(),
            self.turn_frames,
            options.filterbank_steps,
            options.filterbank_learning_rate,
            lambda: cast("Any", self.accelerator.autocast()),
            progress,
        )
        if isinstance(self.model, DualTalk):
            self.model.joint_encoder.audio_encoder2.load_state_dict(encoder.state_dict())
        log.info("speech encoder: %.3f of log-mel variance explained", explained)

    def _tensorboard(self) -> Any:
        if not self.accelerator.is_main_process:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.warning("no TensorBoard here: the log is %s alone", self.run / "log.csv")
            return None
        return SummaryWriter(str(self.run / "tensorboard"))

    def _write(self, tensorboard: Any, metrics: dict[str, float]) -> None:
        """Write metrics to TensorBoard, and to log.csv (step, name, value) for reading without it."""
        path = self.run / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", "name", "value"])
            for name, value in metrics.items():
                if tensorboard is not None:
                    tensorboard.add_scalar(name, value, self.step)
                writer.writerow([self.step, name, f"{value:.6g}"])


def _decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: no decay for biases, norms and learned vectors (one-dimensional, or embeddings by name)."""
    decayed: list[torch.nn.Parameter] = []
    kept: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim < 2 or "embed_learned" in name or name.endswith(("mask_token", "fake_latent"))
            (kept if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
