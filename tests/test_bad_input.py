"""A user's mistake is one line on stderr and status 2, and what was there before is still there."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import DATA, ROOT, SPRITES, generator_run, run_tool, tokenizer_run, trained, write_config

from vidcomp.datasets.sprites import Config as Sprites
from vidcomp.runs import newest_checkpoint
from vidcomp.storage import store
from vidcomp.training import state

Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a tool that must fail, and return its only line."""

    def run(tool: str, *argv: object) -> str:
        capsys.readouterr()
        assert run_tool(tool, *argv) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
        assert "Traceback" not in captured.err
        return captured.err

    return run


def sprites(**changed: Any):
    raw = {key: value for key, value in SPRITES.items() if key != "name"}
    return Sprites.model_validate(raw | changed)


def generator_yaml(folder: Path, tokenizer: object, objective: str = "maskgit") -> Path:
    run = generator_run(str(tokenizer), objective)
    return write_config(run.model_dump(mode="json"), folder / "generator.yaml")


def tokenizer_yaml(folder: Path, **top: Any) -> Path:
    raw = tokenizer_run().model_dump(mode="json")
    return write_config(raw | top, folder / "tokenizer.yaml")


@pytest.mark.parametrize(
    "override, words",
    [
        ("train.stpes=3", "train: unknown key 'stpes'; did you mean 'steps'?"),
        ("tokenizer.name=fqs", "no 'fqs' in tokenizers; did you mean 'fsq'?"),
        ("tokenizer.wdith=8", "did you mean 'width'?"),
        ("data.dataset.name=sprite", "did you mean 'sprites'?"),
        ("generater.objective=maskgit", "unknown key 'generater'; did you mean 'generator'?"),
        ("train.steps=0", "train.steps"),
        ("train.steps=many", "train.steps"),
        ("train.tracker=tensorbord", "train.tracker=tensorbord"),
        ("train.batch_size=9 train.accumulate=2", "must be a multiple of"),
        ("data.dataset.num_frames=4", "4 frames do not fit a temporal stride of 2; legal lengths"),
        ("data.dataset.width=18", "width 18 does not fit a stride of 4; legal sizes"),
        ("data.split.novel.colour=[green]", "no class 'green'; legal: blue, red"),
        ("data.dataset.num_clips=1", "none of the 1 clips"),
    ],
)
def test_a_wrong_setting(override: str, words: str, tmp_path: Path, fails: Fails) -> None:
    config, out = tokenizer_yaml(tmp_path), tmp_path / "out"
    assert words in fails("train", config, *override.split(), f"out={out}")
    assert not out.exists(), "nothing is written before the mistake is found"


def test_a_config_that_is_not_there(tmp_path: Path, fails: Fails) -> None:
    assert "no config at" in fails("train", tmp_path / "none.yaml")


def test_a_held_out_combination_in_the_training_set(
    fsq: Path, tmp_path: Path, fails: Fails
) -> None:
    config, out = generator_yaml(tmp_path, fsq), tmp_path / "out"
    line = fails("train", config, "combinations=all", f"out={out}")
    assert "training clips show held-out combinations" in line and "set combinations=seen" in line
    assert not out.exists()


@pytest.mark.parametrize("tokenizer", ["nowhere", "nowhere.yaml"])
def test_a_tokenizer_that_is_not_there(tokenizer: str, tmp_path: Path, fails: Fails) -> None:
    assert tokenizer in fails("train", generator_yaml(tmp_path, tmp_path / tokenizer))


def test_a_tokenizer_that_is_not_finished(fsq: Path, tmp_path: Path, fails: Fails) -> None:
    half = tmp_path / "half"
    shutil.copytree(fsq, half)
    newest_checkpoint(half).rename(half / "checkpoint-10")
    line = fails("train", generator_yaml(tmp_path, half))
    assert "not finished (checkpoint-58 of 60 steps)" in line and "go on with: python" in line


def test_a_generator_in_the_place_of_a_tokenizer(
    maskgit: Path, tmp_path: Path, fails: Fails
) -> None:
    assert "is a generator's" in fails("train", generator_yaml(tmp_path, maskgit))


def test_codes_asked_of_a_continuous_tokenizer(kl: Path, tmp_path: Path, fails: Fails) -> None:
    line = fails("train", generator_yaml(tmp_path, kl), f"out={tmp_path / 'out'}")
    assert "objective maskgit needs codes, but the tokenizer is continuous" in line


@pytest.mark.parametrize(
    "override, words",
    [
        ("generator.jepa.layers=[7]", "jepa.layers=[7]"),
        ("generator.conditioning.encode.color=exact", "did you mean 'colour'?"),
        ("data.dataset.num_frames=4", "4 frames do not fit a temporal stride of 2"),
        ("evaluate={every: 2, probe: nowhere}", "no fitted judge in nowhere"),
    ],
)
def test_what_cannot_fit_is_said_before_the_tokenizer_is_trained(
    override: str, words: str, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = generator_yaml(tmp_path, tokenizer_yaml(tmp_path))
    assert words in fails("train", config, override)
    assert not Path("runs").exists()


def test_a_clip_that_breaks_in_a_loaders_worker(tmp_path: Path, fails: Fails) -> None:
    data = tmp_path / "data"
    store(sprites(num_clips=40), data)
    folder = {"dataset": {"name": "folder", "path": str(data)}, "split": DATA["split"]}
    run = tokenizer_run(data=folder, num_workers=1)
    out = trained(run, tmp_path / "run")
    newest_checkpoint(out).rename(out / "checkpoint-3")
    for path in (data / "clips").rglob("*.mp4"):
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # it breaks after it was checked
    assert ".mp4" in fails("train", out / "config.yaml", f"out={out}")


def test_another_run_in_the_same_folder(fsq: Path, fails: Fails) -> None:
    before = newest_checkpoint(fsq).stat().st_mtime_ns
    config = fsq / "config.yaml"
    line = fails("train", config, "train.steps=70", f"out={fsq}")
    assert "train.steps: 60 there, 70 here" in line and "another out=DIR" in line
    assert newest_checkpoint(fsq).stat().st_mtime_ns == before


def test_another_tokenizer_behind_the_same_yaml(tmp_path: Path, fails: Fails, monkeypatch) -> None:
    """A YAML names a folder that holds a tokenizer of other settings, finished though it is."""
    monkeypatch.chdir(tmp_path)
    trained(tokenizer_run(steps=2), Path("runs/fsq"))
    changed = tokenizer_run(steps=2).model_dump(mode="json")
    changed["tokenizer"]["width"] = 24
    config = generator_yaml(tmp_path, write_config(changed, tmp_path / "fsq.yaml"))
    assert "tokenizer.width: 16 there, 24 here" in fails("train", config)


@pytest.fixture
def pair(fsq: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A tokenizer, and a generator on it, that a test may spoil."""
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(fsq, tokenizer)
    run = generator_run(tokenizer, steps=4)
    return tokenizer, trained(run, tmp_path / "generator")


def spoil(folder: Path) -> None:
    """Other weights in the newest checkpoint."""
    path = newest_checkpoint(folder) / "ema.safetensors"
    weights = load_file(path)
    weights["encoder.out.bias"] = weights["encoder.out.bias"] + 1
    save_file(weights, path)


def test_a_tokenizer_that_changed_under_its_generator(
    pair: tuple[Path, Path], fails: Fails
) -> None:
    tokenizer, generator = pair
    spoil(tokenizer)
    assert "restore those weights" in fails("sample", generator)
    newest_checkpoint(generator).rename(generator / "checkpoint-3")  # as if it were to go on
    line = fails("train", generator / "config.yaml", f"out={generator}")
    assert "the tokenizer is not the one that" in line


def test_a_tokenizer_that_is_gone(pair: tuple[Path, Path], fails: Fails) -> None:
    tokenizer, generator = pair
    shutil.rmtree(tokenizer)
    assert f"no tokenizer in {tokenizer}" in fails("sample", generator)


def test_weights_that_do_not_fit_their_config(pair: tuple[Path, Path], fails: Fails) -> None:
    _, generator = pair
    config = generator / "config.yaml"
    config.write_text(config.read_text().replace("width: 24", "width: 48"))
    assert "not those of this config and code" in fails("sample", generator)


def test_a_dataset_that_changed_under_its_run(tmp_path: Path, fails: Fails, fsq: Path) -> None:
    data = tmp_path / "data"
    store(sprites(num_clips=40), data)
    folder = {"dataset": {"name": "folder", "path": str(data)}, "split": DATA["split"]}
    run = generator_run(fsq, data=folder, steps=4)
    out = trained(run, tmp_path / "run")
    newest_checkpoint(out).rename(out / "checkpoint-3")
    shutil.rmtree(data)
    store(sprites(num_clips=48), data)
    line = fails("train", out / "config.yaml", f"out={out}")
    assert "the dataset is not the one that" in line


@pytest.mark.parametrize("tool, key", [("sample", "seed=1"), ("probe", "probe=nowhere")])
def test_an_empty_folder_is_no_run(tool: str, key: str, tmp_path: Path, fails: Fails) -> None:
    assert "is not a run folder" in fails(tool, tmp_path, key)


def test_a_run_that_has_no_checkpoint_yet(maskgit: Path, tmp_path: Path, fails: Fails) -> None:
    for name in ("config.yaml", "environment.json"):
        shutil.copy(maskgit / name, tmp_path / name)
    assert "no checkpoint in" in fails("sample", tmp_path)


@pytest.mark.parametrize(
    "key, words",
    [
        ("clips_per_levl=3", "did you mean 'clips_per_level'?"),
        ("sampler.num_steps=0", "num_steps"),
        ("sampler.order=haltom", "order"),
    ],
)
def test_a_wrong_setting_of_sampling(key: str, words: str, maskgit: Path, fails: Fails) -> None:
    assert words in fails("sample", maskgit, key)


def test_a_sampler_of_the_other_kind(maskgit: Path, fails: Fails) -> None:
    assert "did you mean" in fails("sample", maskgit, "sampler={name: heum}")


def test_a_tokenizer_is_neither_sampled_nor_scored(fsq: Path, judge: Path, fails: Fails) -> None:
    assert "tokenizer's run" in fails("sample", fsq)
    assert "tokenizer's run" in fails("probe", fsq, f"probe={judge}")


def test_scoring_without_a_judge(maskgit: Path, fails: Fails, fsq: Path) -> None:
    assert "no fitted judge in" in fails("probe", maskgit, "probe=nowhere")
    assert "holds no fitted judge" in fails("probe", maskgit, f"probe={fsq}")
    assert "takes a judge: the folder of a fitted one, such as probe=" in fails("probe", maskgit)


def test_a_full_disk_while_a_checkpoint_is_written(
    fsq: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier checkpoint stays, and with room again the same command goes on from it."""
    config, out = generator_yaml(tmp_path, fsq), tmp_path / "out"
    save_weights = state.save_weights

    def full(model: torch.nn.Module, path: Path) -> None:
        if "checkpoint-4" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_weights(model, path)

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_weights", full)
        line = fails("train", config, f"out={out}")
    assert "the disk is full" in line and "run the same command again" in line
    assert newest_checkpoint(out).name == "checkpoint-2"
    assert not list(out.glob(".partial*"))
    assert run_tool("train", config, f"out={out}") == 0
    assert newest_checkpoint(out).name == "checkpoint-6"


def test_the_same_from_a_shell(tmp_path: Path) -> None:
    """One real process, for all of the above."""
    config = tokenizer_yaml(tmp_path)
    done = subprocess.run(
        [sys.executable, ROOT / "tools/train.py", config, "train.stpes=3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "did you mean 'steps'?" in done.stderr
