"""A resume is the same command again, to the last bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import ROOT, generator_run, metrics, tokenizer_run, write_yaml

from vidcomp.runs import (
    GeneratorRun,
    TokenizerRun,
    checkpoints,
    newest_checkpoint,
    provenance,
    read_environment,
)
from vidcomp.training import trainer
from vidcomp.training.tasks import train


class Stopped(Exception):
    """The machine went down."""


def interrupted(
    run: TokenizerRun | GeneratorRun, out: Path, monkeypatch: pytest.MonkeyPatch, *, after: int
) -> None:
    """Train until the checkpoint at step `after` is written, and not a moment longer."""
    save = trainer.save_checkpoint

    def save_then_stop(folder, model, ema, optimizer, progress, *, keep):
        save(folder, model, ema, optimizer, progress, keep=keep)
        if progress.step == after:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", save_then_stop)
        with pytest.raises(Stopped):
            train(run, out)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, averages, optimiser and metrics, bit for bit."""
    last = [newest_checkpoint(folder) for folder in (one, other)]
    assert last[0].name == last[1].name
    for name in ("model.safetensors", "ema.safetensors"):
        ours, theirs = (load_file(folder / name) for folder in last)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    ours, theirs = (torch.load(folder / "optimizer.pt", weights_only=True) for folder in last)
    for index, state in ours["state"].items():
        for key, value in state.items():
            assert torch.equal(value, theirs["state"][index][key]), (index, key)
    assert ours["param_groups"] == theirs["param_groups"]
    assert metrics(one) == metrics(other)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["fsq", "vq", "kl"])
def test_a_tokenizer_goes_on_bit_for_bit(
    name: str, accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tokenizer_run(name, accumulate=accumulate, log_every=4)  # 4 does not divide 6
    train(run, tmp_path / "once")
    interrupted(run, tmp_path / "twice", monkeypatch, after=2)
    train(run, tmp_path / "twice")
    assert_same_run(tmp_path / "once", tmp_path / "twice")


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("objective", ["maskgit", "flow"])
def test_a_generator_goes_on_bit_for_bit(
    objective: str, accumulate: int, fsq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jepa = objective == "maskgit"
    run = generator_run(fsq, objective, jepa=jepa, accumulate=accumulate, log_every=4)
    train(run, tmp_path / "once")
    interrupted(run, tmp_path / "twice", monkeypatch, after=4)
    assert [folder.name for folder in checkpoints(tmp_path / "twice")][-1] == "checkpoint-4"
    train(run, tmp_path / "twice")
    assert_same_run(tmp_path / "once", tmp_path / "twice")
    averages = load_file(newest_checkpoint(tmp_path / "twice") / "ema.safetensors")
    assert not any(name.startswith("jepa.") for name in averages), "sampling needs none of it"


def test_resumptions_are_added_to_the_first_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tokenizer_run()
    monkeypatch.setattr(provenance, "commit", lambda: "first")
    interrupted(run, tmp_path, monkeypatch, after=2)
    first = read_environment(tmp_path)
    for commit, after in (("second", 4), ("third", 6)):
        monkeypatch.setattr(provenance, "commit", lambda commit=commit: commit)
        interrupted(run, tmp_path, monkeypatch, after=after)
    found = read_environment(tmp_path)
    resumed = found.pop("resumed")
    assert found == first and first["commit"] == "first"
    assert [(r["commit"], r["step"]) for r in resumed] == [("second", 2), ("third", 4)]
    assert all(
        r.keys() == {"commit", "command", "device", "num_processes", "step"} for r in resumed
    )


def test_curves_by_level_are_the_same_after_a_resume(
    fsq: Path, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = {"every": 2, "probe": str(judge), "clips_per_level": 2}
    run = generator_run(fsq, top={"evaluate": evaluate})
    train(run, tmp_path / "once")
    interrupted(run, tmp_path / "twice", monkeypatch, after=2)
    train(run, tmp_path / "twice")
    assert_same_run(tmp_path / "once", tmp_path / "twice")
    lines = [line for line in metrics(tmp_path / "once") if "eval/seen/joint" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    levels = {f"eval/{level}/joint" for level in ("seen", "level-1", "level-2")}
    assert levels < lines[0].keys()


def test_a_killed_process_goes_on(fsq: Path, tmp_path: Path) -> None:
    run = generator_run(fsq, steps=120, checkpoint_every=10, log_every=10)
    config = write_yaml(run, tmp_path / "run.yaml")
    killed = tmp_path / "killed"
    command = [sys.executable, str(ROOT / "tools/train.py"), str(config), f"out={killed}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    patience_s = time.monotonic() + 120
    while not checkpoints(killed) and time.monotonic() < patience_s:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < int(checkpoints(killed)[-1].name.removeprefix("checkpoint-")) < 120
    train(run, killed)  # what the same command does
    assert_same_run(killed, train(run, tmp_path / "once"))


def test_a_finished_run_is_left_alone(fsq: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in fsq.rglob("*") if path.is_file()}
    train(tokenizer_run("fsq", steps=60, learning_rate=5e-3), fsq)
    assert "finished already, at step 60" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in fsq.rglob("*") if path.is_file()}
