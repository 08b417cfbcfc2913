"""What a run says while it trains: metrics.jsonl, a tracker, a progress bar, and a line at the end.

Every number is a mean over clips, micro-batches, steps and processes since the last line. Lines
written after the checkpoint that a run goes on from are dropped, so an interrupted run leaves the
same file as one that was not.
"""

import json
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, stack, zeros_like
from tqdm import tqdm

from vidcomp.media import write_bytes
from vidcomp.runs import TrainConfig
from vidcomp.training.state import Progress
from vidcomp.types import Losses

_PROJECT = "vidcomp"  # what trackers file the runs under


class Log:
    """Open it with ``with``: the bar and the tracker are closed whatever happens."""

    def __init__(
        self, accelerator: Accelerator, out: Path, config: TrainConfig, progress: Progress
    ) -> None:
        self.accelerator, self.out, self.config = accelerator, out, config
        self.path = out / "metrics.jsonl"
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.since_s, self.since_step = time.perf_counter(), progress.step
        if accelerator.is_main_process:
            forget_after(self.path, progress.step)
        if config.tracker != "none":
            accelerator.init_trackers(_PROJECT)
        self.bar = tqdm(
            desc=out.name,
            total=config.steps,
            initial=progress.step,
            unit="step",
            disable=None if accelerator.is_main_process else True,  # None: shown on terminals only
        )

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        # Not Accelerate's end_training, which would end the processes' group with it: a generator
        # that comes after its tokenizer still needs that.
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def add(self, losses: Losses) -> None:
        """The losses of a micro-batch."""
        values = {**losses.terms, **losses.metrics, "loss": losses.total()}
        for name, value in values.items():
            mean = value.detach().float().mean()
            self.sums[name] = self.sums.get(name, zeros_like(mean)) + mean
        self.count += 1

    def write(self, progress: Progress, *, learning_rate: float, grad_norm: float) -> None:
        """A line of means, on every process at once."""
        names = sorted(self.sums)
        means = stack([self.sums[name] for name in names]) / self.count
        reduced = self.accelerator.reduce(means, reduction="mean")
        assert isinstance(reduced, Tensor)
        values = dict(zip(names, reduced.tolist(), strict=True))
        now = time.perf_counter()
        steps = progress.step - self.since_step
        values |= {"learning_rate": learning_rate, "grad_norm": grad_norm}
        values |= {"steps_per_s": steps / (now - self.since_s)}
        self.sums, self.count = {}, 0
        self.since_s, self.since_step = now, progress.step
        self.bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        self.bar.update(progress.step - self.bar.n)
        self._record(progress.step, values)

    def write_evaluation(self, step: int, values: dict[str, float]) -> None:
        """What a hook found, on the main process. Its time does not count as training."""
        self._record(step, values)
        self.since_s, self.since_step = time.perf_counter(), step

    def summary(self, progress: Progress, tokens_per_clip: float, num_parameters: int) -> None:
        """The last line: steps/s, tokens/s and the share of time spent waiting for data."""
        seconds = max(progress.train_s, 1e-9)
        steps_per_s = progress.step / seconds
        tokens_per_s = steps_per_s * self.config.batch_size * tokens_per_clip
        self.accelerator.print(
            f"{self.out}: {progress.step} steps in {seconds:.0f} s, {steps_per_s:.2f} steps/s, "
            f"{tokens_per_s:,.0f} tokens/s, {progress.wait_s / seconds:.1%} waiting for data, "
            f"{progress.skipped_steps} steps skipped, {num_parameters:,} parameters"
        )

    def _record(self, step: int, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            self.accelerator.log(values, step=step)


def forget_after(path: Path, step: int) -> None:
    """Drop lines past `step`, and one that was cut off."""
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text().splitlines():
        record: dict[str, Any] = json.loads(line) if line.endswith("}") else {"step": step + 1}
        if record["step"] <= step:
            kept.append(line + "\n")
    write_bytes(path, "".join(kept).encode())
