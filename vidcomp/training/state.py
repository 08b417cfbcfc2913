"""Checkpoints: complete or absent, free of pickles that run code, and enough to go on bit for bit.

``checkpoint-N`` is written under another name and renamed, N being the number of steps done:

    model.safetensors   ema.safetensors   optimizer.pt (tensors only)   state.json

No random state is in it, because there is none: draws are a pure function of the seed and the
sample's index (see `vidcomp.seeding`).
"""

import copy
import io
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vidcomp.runs import checkpoints, fill


@dataclass
class Progress:
    """How far a run has come. Seconds are of training alone, summed over resumptions."""

    step: int = 0
    train_s: float = 0.0
    wait_s: float = 0.0
    skipped_steps: int = 0


class Ema:
    """An exponential moving average of a model's trained weights; what sampling uses.

    It starts from a copy of `model`, which may be a part of what is trained: weights are paired by
    name. Early on the average covers only what there is: the decay is at most (1 + n) / (10 + n).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        trained, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        for name, ours in self.model.named_parameters():
            if trained[name].requires_grad:
                averages.append(ours)
                weights.append(trained[name].detach())
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore
        for name, ours in self.model.named_buffers():
            ours.copy_(buffers[name])


def save_checkpoint(
    out: Path,
    model: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    *,
    keep: int,
) -> None:
    """Write ``checkpoint-<step>`` and remove all but the newest `keep`."""
    partial = out / f".partial-checkpoint-{progress.step}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_weights(model, partial / "model.safetensors")
        save_weights(ema.model, partial / "ema.safetensors")
        buffer = io.BytesIO()
        torch.save(optimizer.state_dict(), buffer)
        (partial / "optimizer.pt").write_bytes(buffer.getvalue())
        (partial / "state.json").write_text(json.dumps(asdict(progress)))
        partial.rename(out / f"checkpoint-{progress.step}")
    finally:
        shutil.rmtree(
            partial, ignore_errors=True
        )  # after a failure: on a full disk it is in the way
    for old in checkpoints(out)[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put everything back as it was when `folder` was written."""
    fill(model, load_file(folder / "model.safetensors"), folder)
    fill(ema.model, load_file(folder / "ema.safetensors"), folder)
    # By way of the CPU: on the device that wrote it, if there is one here, it would lie twice.
    saved = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
    optimizer.load_state_dict(saved)
    return Progress(**json.loads((folder / "state.json").read_text()))


def save_weights(model: nn.Module, path: Path) -> None:
    """All parameters and buffers of `model`, as safetensors.

    Through bytes, because on a full disk only Python's own writing raises an `OSError` that says
    so.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    path.write_bytes(save(tensors))
