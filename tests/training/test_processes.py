"""Two real processes do what one does, launched as a user would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import ROOT, generator_run, metrics, tokenizer_run, write_yaml
from torch import stack

from vidcomp.runs import newest_checkpoint
from vidcomp.training.tasks import train


def launch(*command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": port}
    words = [sys.executable, "-m", *command[:1], *(w.format(port=port) for w in command[1:])]
    return subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def distance(one: Path, other: Path) -> float:
    """Between the averaged weights of two runs, relative to how long they are."""
    ours, theirs = (load_file(newest_checkpoint(f) / "ema.safetensors") for f in (one, other))
    gaps = stack([(ours[k].double() - theirs[k].double()).norm() for k in ours])
    return float(gaps.norm() / stack([ours[k].double().norm() for k in ours]).norm())


def test_two_processes_draw_and_learn_what_one_does(tmp_path: Path) -> None:
    """The generator's command trains its VQ tokenizer first, so one launch tries both."""
    tokenizer = write_yaml(tokenizer_run("vq", accumulate=2), tmp_path / "vq.yaml")
    generator = generator_run(tokenizer, jepa=True)
    config = write_yaml(generator, tmp_path / "generator.yaml")
    done = launch(
        *("torch.distributed.run", "--nproc_per_node", "2", "--master_port", "{port}"),
        *(str(ROOT / "tools/train.py"), str(config), "out=two"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    two = {"vq": tmp_path / "runs/vq", "generator": tmp_path / "two"}
    for folder in two.values():
        assert json.loads((folder / "environment.json").read_text())["num_processes"] == 2

    one = {
        "vq": train(tokenizer_run("vq"), tmp_path / "vq-one"),
        "generator": train(generator_run(two["vq"], jepa=True), tmp_path / "one"),
    }
    for name in one:
        for ours, theirs in zip(metrics(one[name]), metrics(two[name]), strict=True):
            assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-6)
        assert distance(one[name], two[name]) < 1e-3
    assert done.stdout.count("steps/s") == 2, "each run says once how fast it was"


@pytest.mark.slow
def test_accelerate_launches_it(tmp_path: Path, fsq: Path) -> None:
    """With one process: on a CPU Accelerate's launcher starts more only through MPI."""
    config = write_yaml(generator_run(fsq), tmp_path / "generator.yaml")
    done = launch(
        *("accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *(str(ROOT / "tools/train.py"), str(config), "out=launched"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert distance(tmp_path / "launched", train(generator_run(fsq), tmp_path / "one")) == 0
