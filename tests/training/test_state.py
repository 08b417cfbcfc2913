"""A checkpoint is complete or absent, whatever happens while it is written."""

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vidcomp.config import UserError
from vidcomp.runs import checkpoints, newest_checkpoint
from vidcomp.training import state
from vidcomp.training.log import forget_after
from vidcomp.training.state import Ema, Progress, load_checkpoint, save_checkpoint


class Everything:
    """A model with a buffer, its averages, and an optimiser that has taken a step."""

    def __init__(self, seed: int = 0) -> None:
        self.model = nn.BatchNorm1d(3)
        with torch.no_grad():
            self.model.weight.copy_(torch.arange(3) + 1.0 + seed)
        self.ema = Ema(self.model, 0.9)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.model(torch.arange(12.0).reshape(4, 3) ** (seed + 1)).square().sum().backward()
        self.optimizer.step()

    def save(self, out: Path, step: int, keep: int = 9) -> None:
        progress = Progress(step=step, skipped_steps=2)
        save_checkpoint(out, self.model, self.ema, self.optimizer, progress, keep=keep)


def test_loading_is_the_inverse_of_saving(tmp_path: Path) -> None:
    ours, theirs = Everything(), Everything(seed=1)
    ours.save(tmp_path, 5)
    folder = newest_checkpoint(tmp_path)
    progress = load_checkpoint(folder, theirs.model, theirs.ema, theirs.optimizer)
    assert progress == Progress(step=5, skipped_steps=2)
    for one, other in ((ours.model, theirs.model), (ours.ema.model, theirs.ema.model)):
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert str(ours.optimizer.state_dict()) == str(theirs.optimizer.state_dict())


def test_weights_are_safetensors_and_nothing_needs_a_pickle_that_runs_code(tmp_path: Path) -> None:
    Everything().save(tmp_path, 5)
    folder = tmp_path / "checkpoint-5"
    assert load_file(folder / "model.safetensors").keys() == nn.BatchNorm1d(3).state_dict().keys()
    torch.load(folder / "optimizer.pt", weights_only=True)
    assert json.loads((folder / "state.json").read_text())["step"] == 5
    assert len(list(folder.iterdir())) == 4


def test_the_optimiser_of_another_device_is_read_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of a GPU can go on without one."""
    run = Everything()
    run.save(tmp_path, 5)
    placed: list[object] = []
    load = torch.load

    def remember(path: Path, *, weights_only: bool, map_location: object = None) -> object:
        placed.append(map_location)
        return load(path, weights_only=weights_only, map_location=map_location)

    monkeypatch.setattr(torch, "load", remember)
    load_checkpoint(newest_checkpoint(tmp_path), run.model, run.ema, run.optimizer)
    assert placed == ["cpu"]


@pytest.mark.parametrize("good_writes", [0, 1])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_rubbish(
    good_writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Everything()
    run.save(tmp_path, 5)
    before = (tmp_path / "checkpoint-5" / "model.safetensors").read_bytes()
    written: list[Path] = []
    save_weights = state.save_weights

    def fill_up(model: nn.Module, path: Path) -> None:
        written.append(path)
        if len(written) > good_writes:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_weights(model, path)

    monkeypatch.setattr(state, "save_weights", fill_up)
    with pytest.raises(OSError, match="No space left"):
        run.save(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]
    assert (tmp_path / "checkpoint-5" / "model.safetensors").read_bytes() == before


def test_what_a_killed_process_left_does_not_count_and_is_not_in_the_way(tmp_path: Path) -> None:
    run = Everything()
    run.save(tmp_path, 5)
    left = tmp_path / ".partial-checkpoint-10"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-5"]
    run.save(tmp_path, 10)
    names = [folder.name for folder in tmp_path.iterdir()]
    assert sorted(names) == ["checkpoint-10", "checkpoint-5"]
    assert len(list((tmp_path / "checkpoint-10").iterdir())) == 4


def test_the_newest_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    run = Everything()
    for step in (8, 9, 10, 11):
        run.save(tmp_path, step, keep=2)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-11"]


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    Everything().save(tmp_path, 5)
    other = nn.Linear(2, 2)
    with pytest.raises(UserError, match="not those of this config and code") as raised:
        load_checkpoint(
            tmp_path / "checkpoint-5", other, Ema(other, 0.9), torch.optim.AdamW(other.parameters())
        )
    assert "\n" not in str(raised.value)


def test_averages_in_closed_form() -> None:
    """Weights of step n are n, so the average is a sum over them; what is frozen stays."""
    model = nn.BatchNorm1d(1)
    model.bias.requires_grad_(False)
    nn.init.zeros_(model.weight)
    ema = Ema(model, 0.3)
    expected = 0.0
    for step in range(5):
        with torch.no_grad():
            model.weight.fill_(step)
            model.bias.fill_(step)
            model.running_mean.fill_(step)
        ema.update(model, step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert float(ema.model.weight) == pytest.approx(expected)
        assert float(ema.model.running_mean) == step  # buffers are copied
        assert float(ema.model.bias) == 0
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_lines_after_a_checkpoint_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    forget_after(path, 3)
    assert not path.exists()
    lines = ['{"step": 2, "loss": NaN}', '{"step": 4, "loss": 1.0}', '{"step": 3, "eval/x": 0.5}']
    path.write_text("\n".join(lines) + '\n{"step": 5, "lo')
    forget_after(path, 3)
    assert path.read_text() == f"{lines[0]}\n{lines[2]}\n"
