"""The training loop, on Accelerate: one process or many, CPU or GPU, the same numbers drawn.

A step reads as the algorithm: batch, losses, gradients, clip, step, averages. The data order and every
random draw are functions of the seed and the sample's position in the endless stream of shuffled clips,
so a resume is the same command again, and N processes draw what one draws.
"""

import contextlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from vidcomp.config import UserError
from vidcomp.runs import TrainConfig, checkpoints
from vidcomp.schedules import warmup_cosine
from vidcomp.seeding import Rng, stream_indices
from vidcomp.training.state import Ema, Progress, load_checkpoint, save_checkpoint
from vidcomp.types import Losses, num_parameters

_MAX_SKIPPED_IN_A_ROW = 10


class Task(nn.Module, ABC):
    """What is trained on what. `model` is what is averaged and saved."""

    model: nn.Module
    num_clips: int
    tokens_per_clip: int

    @abstractmethod
    def batch(self, clips: Int64[Tensor, " b"]) -> Any:
        """The training clips with these numbers, 0 <= number < `num_clips`, as CPU tensors."""

    @abstractmethod
    def forward(self, batch: Any, rng: Rng) -> Losses:
        """The losses of each clip."""

    def after_step(self) -> None:
        """After each optimiser step."""
        return


Hook = Callable[[int, nn.Module], dict[str, float]]
"""Called with (steps done, EMA model) where it is due; what it returns is logged."""


@dataclass(frozen=True)
class Hooks:
    """`evaluate` runs every `every` steps and after the last, on the main process."""

    evaluate: Hook | None = None
    every: int = 0


def fit(task: Task, config: TrainConfig, out: Path, *, seed: int, hooks: Hooks | None = None) -> Ema:
    """Train `task` to ``config.steps`` steps, from the newest checkpoint in `out` if there is one."""
    accelerator = make_accelerator(config, out)
    per_process = micro_batch_size(config, accelerator.num_processes)
    task.to(accelerator.device)
    ema = Ema(task.model, config.ema_decay)
    optimizer = torch.optim.AdamW(
        parameter_groups(task, config.weight_decay), lr=config.learning_rate, betas=config.betas, fused=True
    )
    progress = Progress()
    if saved := checkpoints(out):
        progress = load_checkpoint(saved[-1], task.model, ema, optimizer)
        accelerator.print(f"{out}: going on from step {progress.step}")
    wrapped = accelerator.prepare_model(task)
    accelerated = accelerator.prepare_optimizer(optimizer)
    log = Log(accelerator, out, config, progress.step)
    batches = micro_batches(task, config, seed, accelerator, progress.step, per_process)
    bar = tqdm(
        total=config.steps,
        initial=progress.step,
        desc=out.name,
        unit="step",
        disable=not accelerator.is_main_process,
        mininterval=1.0,
    )
    hooks = hooks or Hooks()
    skipped_in_a_row = 0
    task.train()
    while progress.step < config.steps:
        began = time.perf_counter()
        factor = warmup_cosine(progress.step, num_steps=config.steps, warmup_steps=config.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * factor

        # Gradients of the mean over the global batch, summed over micro-batches.
        for micro in range(config.accumulate):
            waited = time.perf_counter()
            batch, rng = next(batches)
            progress.wait_s += time.perf_counter() - waited
            last = micro + 1 == config.accumulate
            with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
                with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
                    losses = wrapped(batch, rng)
                accelerator.backward(losses.total().mean() / config.accumulate)
            log.add(losses)

        # A step whose gradient is not finite is skipped and counted, never taken.
        norm = accelerator.clip_grad_norm_(task.parameters(), config.grad_clip)
        finite = bool(torch.isfinite(torch.as_tensor(norm)))
        if finite:
            accelerated.step()
            task.after_step()
            ema.update(task.model, progress.step)
        accelerated.zero_grad()
        skipped_in_a_row = 0 if finite else skipped_in_a_row + 1
        progress.skipped_steps += not finite
        if skipped_in_a_row == _MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"{out}: {skipped_in_a_row} steps in a row had a gradient that is not finite (step "
                f"{progress.step}); lower train.learning_rate, or set train.mixed_precision=no"
            )

        progress.step += 1
        progress.train_s += time.perf_counter() - began
        bar.update()
        done = progress.step == config.steps
        if progress.step % config.log_every == 0 or done:
            log.write(progress, learning_rate=config.learning_rate * factor, grad_norm=float(norm), bar=bar)
        if hooks.evaluate and (done or (hooks.every and progress.step % hooks.every == 0)):
            if accelerator.is_main_process:
                log.write_evaluation(progress.step, hooks.evaluate(progress.step, ema.model))
            accelerator.wait_for_everyone()
        if progress.step % config.checkpoint_every == 0 or done:
            if accelerator.is_main_process:
                save_checkpoint(out, task.model, ema, optimizer, progress, keep=config.keep_checkpoints)
            accelerator.wait_for_everyone()
    bar.close()
    log.close(task, progress)
    return ema


def make_accelerator(config: TrainConfig, out: Path) -> Accelerator:
    """Accelerate with the configured tracker; raises UserError on an unknown one.

    Precision is this project's own autocast in `fit`: Accelerate's is a setting of the process, so a
    tokenizer and a generator of different precision could not be trained one after the other.
    """
    tracker = None if config.tracker == "none" else config.tracker
    try:
        return Accelerator(
            mixed_precision="no",
            log_with=tracker,
            project_dir=str(out),
            cpu=not torch.cuda.is_available(),
        )
    except ValueError as error:
        raise UserError(f"train.tracker={config.tracker}: {error}; 'none' logs to metrics.jsonl alone") from None


def micro_batch_size(config: TrainConfig, num_processes: int) -> int:
    """Clips for each process in each micro-batch; the global batch must divide evenly."""
    parts = num_processes * config.accumulate
    if config.batch_size % parts:
        raise UserError(
            f"train.batch_size={config.batch_size} is the global batch and must be a multiple of "
            f"{num_processes} processes x train.accumulate={config.accumulate}"
        )
    return config.batch_size // parts


def parameter_groups(task: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; gains, biases and null vectors do not."""
    trained = [p for p in task.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


class _Order(TorchDataset[Any]):
    """Micro-batch `i` of this process, as a pure function of `i`; so any loader worker can make it."""

    def __init__(self, task: Task, seed: int, size: int, rank: int, num_processes: int) -> None:
        self.task, self.seed, self.size = task, seed, size
        self.rank, self.num_processes = rank, num_processes

    def __getitem__(self, i: int) -> tuple[Any, Tensor]:
        start = (i * self.num_processes + self.rank) * self.size
        clips = stream_indices(self.seed, self.task.num_clips, start, self.size)
        return self.task.batch(clips), torch.arange(start, start + self.size)


def micro_batches(
    task: Task, config: TrainConfig, seed: int, accelerator: Accelerator, step: int, size: int
) -> Iterator[tuple[Any, Rng]]:
    """Batches and their random streams, from step `step` on, on this process's device."""
    order = _Order(task, seed, size, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(
        order,
        batch_size=None,
        sampler=range(step * config.accumulate, config.steps * config.accumulate),
        num_workers=config.num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    for batch, index in loader:
        moved = batch.to(accelerator.device)
        yield moved, Rng.make(seed, "train", index.to(accelerator.device))


class Log:
    """metrics.jsonl, the tracker and the progress bar; means over clips, steps and processes since the last line."""

    def __init__(self, accelerator: Accelerator, out: Path, config: TrainConfig, step: int) -> None:
        self.accelerator = accelerator
        self.path = out / "metrics.jsonl"
        self.config = config
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        if accelerator.is_main_process:
            forget_after(self.path, step)
        if config.tracker != "none":
            accelerator.init_trackers("tracker")
        self.since = (time.perf_counter(), step)
        self.first_step = step

    def add(self, losses: Losses) -> None:
        means = {name: value.detach().float().mean() for name, value in losses.terms.items()}
        means |= {name: value.detach().float().mean() for name, value in losses.metrics.items()}
        means["loss"] = losses.total().detach().float().mean()
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.count += 1

    def write(self, progress: Progress, *, learning_rate: float, grad_norm: float, bar: "tqdm[Any]") -> None:
        names = sorted(self.sums)
        mean = torch.stack([self.sums[name] for name in names]) / self.count
        mean = self.accelerator.reduce(mean, reduction="mean")
        assert isinstance(mean, Tensor)
        values = dict(zip(names, mean.tolist(), strict=True))
        now = time.perf_counter()
        values["steps_per_s"] = (progress.step - self.since[1]) / (now - self.since[0])
        values |= {"learning_rate": learning_rate, "grad_norm": grad_norm}
        self.since, self.sums, self.count = (now, progress.step), {}, 0
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        self._record(progress.step, values)

    def write_evaluation(self, step: int, values: dict[str, float]) -> None:
        self._record(step, values)
        self.since = (time.perf_counter(), step)

    def close(self, task: Task, progress: Progress) -> None:
        """The last line: steps/s, tokens/s and the share of time that was spent waiting for data."""
        if self.config.tracker != "none":
            self.accelerator.end_training()
        if progress.step == self.first_step:
            self.accelerator.print(f"{self.path.parent}: already finished at step {progress.step}")
            return
        seconds = max(progress.train_s, 1e-9)
        rate = progress.step / seconds
        tokens = rate * self.config.batch_size * task.tokens_per_clip
        self.accelerator.print(
            f"{self.path.parent}: {progress.step} steps in {seconds:.0f} s, {rate:.2f} steps/s, "
            f"{tokens:,.0f} tokens/s, {progress.wait_s / seconds:.1%} waiting for data, "
            f"{progress.skipped_steps} skipped, {num_parameters(task.model):,} parameters"
        )

    def _record(self, step: int, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        if self.config.tracker != "none":
            self.accelerator.log(values, step=step)


def forget_after(path: Path, step: int) -> None:
    """Drop lines past `step`: they were written after the checkpoint that a resumed run goes on from."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept))
