"""Runs in which nothing is learned: a tokenizer without parameters, at ``train.steps=0``.

Such a run has no optimiser to speak of and no step to log. What is measured after training is
measured all the same, and the folder is that of any finished run, with a ``checkpoint-0``.
"""

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from vidcomp.config import UserError
from vidcomp.runs import GeneratorRun, Run, TrainConfig
from vidcomp.seeding import initial_weights
from vidcomp.training.log import Log
from vidcomp.training.state import Ema, Progress, save_checkpoint
from vidcomp.training.trainer import Hooks, Task, make_optimizer
from vidcomp.types import num_parameters


def refuse_idle(run: Run) -> None:
    """Raise UserError unless `train.steps` is 0 where there is nothing to train, and only there."""
    with initial_weights(run.seed):
        learns = isinstance(run, GeneratorRun) or num_parameters(run.tokenizer.build()) > 0
    if learns and run.train.steps == 0:
        raise UserError(
            "train.steps=0 is for a tokenizer without parameters, such as 'patches'; "
            "this run has something to train: say how many steps, at least 1"
        )
    if not learns and run.train.steps > 0:
        raise UserError(
            f"train.steps={run.train.steps}, but run {run.name!r} has no parameters to train; "
            "set train.steps=0"
        )


def keep(
    task: Task[Any], config: TrainConfig, out: Path, *, accelerator: Accelerator, hooks: Hooks
) -> None:
    """Measure `task` and save it as it was built; `fit` is for what learns."""
    task.to(accelerator.device).eval()
    ema, progress = Ema(task.averaged(), config.ema_decay), Progress()
    with Log(accelerator, out, config, progress) as log:
        if accelerator.is_main_process:
            if hooks.evaluate:
                log.write_evaluation(0, hooks.evaluate(0, ema.model))
            save_checkpoint(out, task.model, ema, make_optimizer(task, config), progress, keep=1)
    accelerator.wait_for_everyone()
    accelerator.print(f"{out}: nothing to train; measured, and saved as checkpoint-0")
