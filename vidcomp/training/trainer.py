"""The training loop, on Accelerate: one process or many, CPU or GPU, the same numbers drawn.

A step reads as the algorithm: batch, losses, gradients, clip, step, averages. The data order and
every random draw are functions of the seed and the sample's position in the endless stream of
shuffled clips (`training.order`), so a resume is the same command again, and N processes draw what
one draws.
"""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import filter_trackers
from jaxtyping import Int64
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.datasets.base import Portion
from vidcomp.runs import TrainConfig, checkpoints
from vidcomp.schedules import warmup_cosine
from vidcomp.seeding import Rng
from vidcomp.training.log import Log
from vidcomp.training.memory import keep_freed_memory
from vidcomp.training.order import micro_batches
from vidcomp.training.state import Ema, Progress, load_checkpoint, save_checkpoint
from vidcomp.types import Losses, num_parameters

Model = TypeVar("Model", bound=nn.Module)

MAX_SKIPPED_IN_A_ROW = 10
_LOG_FOLDER = "logs"  # of trackers that write files


class Task(nn.Module, ABC, Generic[Model]):
    """What is trained on what. `model` is what is saved."""

    model: Model
    portions: tuple[Portion, ...]
    tokens_per_clip: float

    @abstractmethod
    def batch(self, clips: Int64[Tensor, " b"], rng: Rng) -> Any:
        """The training clips with these numbers, rows of `portions` and of one length, as CPU
        tensors in a record that has `to(device)`. Random crops are those of `rng`."""

    @abstractmethod
    def forward(self, batch: Any, rng: Rng) -> Losses:
        """The losses of each clip."""

    def averaged(self) -> Model:
        """What of `model` is averaged: all that is used after training."""
        return self.model

    def averages_are(self, averages: Model) -> None:
        """Before the first step: `averages` will be, after each step, those of `averaged()`."""
        return

    def after_step(self) -> None:
        """After each optimiser step."""
        return

    def after_skipped_step(self) -> None:
        """After a step that was not taken: what `forward` gathered for it is forgotten."""
        return


Hook = Callable[[int, nn.Module], dict[str, float]]
"""Called with (steps done, EMA model) where it is due; what it returns is logged."""


@dataclass(frozen=True)
class Hooks:
    """`evaluate` runs every `every` steps (0: never) and after the last, on the main process."""

    evaluate: Hook | None = None
    every: int = 0


def fit(
    task: Task[Any],
    config: TrainConfig,
    out: Path,
    *,
    accelerator: Accelerator,
    seed: int,
    hooks: Hooks | None = None,
) -> Ema:
    """Train `task` to ``config.steps`` steps, from the newest checkpoint in `out` if there is
    one."""
    hooks = hooks or Hooks()
    keep_freed_memory()

    # Weights, their averages and the optimiser, as the newest checkpoint has them.
    task.to(accelerator.device).train()
    ema = Ema(task.averaged(), config.ema_decay)
    optimizer = make_optimizer(task, config)
    progress = Progress()
    if saved := checkpoints(out):
        progress = load_checkpoint(saved[-1], task.model, ema, optimizer)
        accelerator.print(f"{out}: going on from step {progress.step}")
    task.averages_are(ema.model)
    network = accelerator.prepare_model(task)  # the same weights; gradients over all processes
    batches = micro_batches(task, config, accelerator, seed=seed, first_step=progress.step)

    with Log(accelerator, out, config, progress) as log:
        skipped_in_a_row = 0
        while progress.step < config.steps:
            began = time.perf_counter()
            learning_rate = set_learning_rate(optimizer, config, progress.step)

            # Gradients of the mean over the global batch, summed over micro-batches.
            for micro in range(config.accumulate):
                waiting = time.perf_counter()
                batch, rng = next(batches)
                progress.wait_s += time.perf_counter() - waiting
                is_last = micro + 1 == config.accumulate
                with contextlib.nullcontext() if is_last else accelerator.no_sync(network):
                    with autocast(accelerator, config):
                        losses = network(batch, rng)
                    accelerator.backward(losses.total().mean() / config.accumulate)
                log.add(losses)

            # The step, and what follows it. Not finite: skipped and counted, never taken.
            norm = float(nn.utils.clip_grad_norm_(task.parameters(), config.grad_clip))
            if math.isfinite(norm):
                optimizer.step()
                task.after_step()
                ema.update(task.model, progress.step)
                skipped_in_a_row = 0
            else:
                task.after_skipped_step()
                progress.skipped_steps += 1
                skipped_in_a_row += 1
                refuse_divergence(out, progress, skipped_in_a_row)
            optimizer.zero_grad()
            progress.step += 1
            progress.train_s += time.perf_counter() - began

            # Where it is due: a line of means, an evaluation of the averages, a checkpoint. A line
            # is due with every checkpoint, so that a resumed run writes the same lines.
            save = due(progress.step, config.checkpoint_every, config.steps)
            if save or due(progress.step, config.log_every, config.steps):
                log.write(progress, learning_rate=learning_rate, grad_norm=norm)
            if hooks.evaluate and due(progress.step, hooks.every, config.steps):
                if accelerator.is_main_process:
                    log.write_evaluation(progress.step, hooks.evaluate(progress.step, ema.model))
                accelerator.wait_for_everyone()
            if save:
                if accelerator.is_main_process:
                    keep = config.keep_checkpoints
                    save_checkpoint(out, task.model, ema, optimizer, progress, keep=keep)
                accelerator.wait_for_everyone()
    log.summary(progress, task.tokens_per_clip, num_parameters(task.model))
    return ema


def due(step: int, every: int, last: int) -> bool:
    """Every `every` steps (0: never), and after the last."""
    return step == last or (every > 0 and step % every == 0)


def autocast(accelerator: Accelerator, config: TrainConfig) -> torch.autocast:
    """bf16 where the config asks for it.

    Not Accelerate's own, which is a setting of the whole process: a tokenizer and a generator of
    different precision could not be trained one after the other.
    """
    enabled = config.mixed_precision == "bf16"
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=enabled)


def refuse_divergence(out: Path, progress: Progress, skipped_in_a_row: int) -> None:
    """Raise UserError if too many steps in a row had to be skipped."""
    if skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise UserError(
            f"{out}: {skipped_in_a_row} steps in a row had a gradient that is not finite, the last "
            f"at step {progress.step}; lower train.learning_rate, or set train.mixed_precision=no, "
            "with another out=DIR"
        )


def make_accelerator(config: TrainConfig, out: Path) -> Accelerator:
    """Accelerate with the configured tracker; raises UserError on one that it does not have."""
    cpu = not torch.cuda.is_available()
    PartialState(cpu=cpu)  # looking for a tracker logs, which needs to know the processes
    return Accelerator(
        mixed_precision="no",  # see `autocast`
        log_with=None if config.tracker == "none" else installed_tracker(config.tracker, out),
        project_dir=str(out / _LOG_FOLDER),
        cpu=cpu,
    )


def installed_tracker(name: str, out: Path) -> str:
    """`name`, if Accelerate knows it and can load it; else raises UserError."""
    way_out = "'none' logs to metrics.jsonl alone"
    try:
        usable = filter_trackers([name], str(out / _LOG_FOLDER))
    except ValueError as error:
        raise UserError(f"train.tracker={name}: {error}; {way_out}") from None
    if not usable:
        raise UserError(f"train.tracker={name}: its package is not installed; {way_out}")
    return name


def micro_batch_size(config: TrainConfig, num_processes: int) -> int:
    """Clips for each process in each micro-batch; the global batch must divide evenly."""
    parts = num_processes * config.accumulate
    if config.batch_size % parts:
        raise UserError(
            f"train.batch_size={config.batch_size} is the global batch and must be a multiple of "
            f"{num_processes} processes x train.accumulate={config.accumulate}"
        )
    return config.batch_size // parts


def make_optimizer(task: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; its learning rate is set before every step."""
    groups = parameter_groups(task, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def parameter_groups(task: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and tables decay; gains and biases do not."""
    trained = [p for p in task.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> float:
    """Warm-up and decay, as a function of the step alone; returns the rate."""
    factor = warmup_cosine(step, num_steps=config.steps, warmup_steps=config.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * factor
    return config.learning_rate * factor
