"""Run folders: whose they are, which clips are for what, and how a YAML is told apart."""

import json
from pathlib import Path

import pytest
import torch
from tiny import DATA, generator_run, tokenizer_run, trained, write_yaml

from vidcomp.config import UserError
from vidcomp.datasets.base import DataConfig, Dataset, build
from vidcomp.runs import (
    GeneratorRun,
    TokenizerRun,
    checkpoints,
    commit,
    finished,
    load_judge,
    load_run,
    open_folder,
    out_of,
    read_environment,
    rows_for,
    sampling_of,
    weights_digest,
)
from vidcomp.world.factors import Factors


def sprites(num_clips: int) -> Dataset:
    raw = DATA | {"dataset": DATA["dataset"] | {"num_clips": num_clips}}
    return build(DataConfig.model_validate(raw)).dataset


@pytest.mark.parametrize("num_clips", [1, 2, 4, 5, 80, 4000])
def test_about_a_fifth_is_for_scoring_and_nothing_else(num_clips: int) -> None:
    dataset = sprites(num_clips)
    training, scoring = rows_for("training", dataset), rows_for("scoring", dataset)
    assert sorted([*training.tolist(), *scoring.tolist()]) == list(range(num_clips))
    assert len(scoring) >= 1 and (len(training) >= 1 or num_clips == 1)
    assert abs(len(scoring) - num_clips / 5) < 1 + 3 * (0.16 * num_clips) ** 0.5
    assert torch.equal(scoring, rows_for("scoring", dataset))


def test_datasets_of_two_sizes_agree_on_what_scores() -> None:
    """Clip i of a world and seed is the same in both: it trains in none if it scores in one."""
    sizes = (80, 81, 500, 4000)
    training = [set(rows_for("training", sprites(n)).tolist()) for n in sizes]
    scoring = [set(rows_for("scoring", sprites(n)).tolist()) for n in sizes]
    assert not any(a & b for a in training for b in scoring)


def test_a_run_folder_says_what_its_numbers_depend_on(fsq: Path, maskgit: Path) -> None:
    run, _ = load_run(maskgit / "config.yaml")
    known = read_environment(maskgit)
    dataset, split = build(run.data)
    assert known["config_hash"] == run.digest
    assert known["split_hash"] == split.digest and known["dataset"] == dataset.fingerprint
    assert known["num_processes"] == 1 and known["commit"] == commit()
    assert known["versions"].keys() >= {"python", "torch", "accelerate"}
    noted = {"folder": "../fsq", "path": str(fsq), "digest": weights_digest(fsq)}
    assert known["tokenizer"] == noted
    assert known["parameters"] > 1000 and known["device"] and known["command"]


def test_config_yaml_is_the_run_itself(fsq: Path, maskgit: Path) -> None:
    assert load_run(fsq / "config.yaml")[0] == tokenizer_run("fsq", steps=60, learning_rate=5e-3)
    assert load_run(maskgit / "config.yaml")[0] == generator_run(fsq, jepa=True, steps=20)
    assert load_run(maskgit / "config.yaml")[0] != generator_run(fsq, jepa=True, steps=21)


def test_a_generator_is_told_by_its_key(tmp_path: Path) -> None:
    one = write_yaml(tokenizer_run(), tmp_path / "t.yaml")
    two = write_yaml(generator_run("somewhere"), tmp_path / "g.yaml")
    assert isinstance(load_run(one)[0], TokenizerRun)
    run, out = load_run(two, ["out=there", "train.steps=3", "out=here"])
    assert isinstance(run, GeneratorRun) and run.train.steps == 3 and out == Path("here")


def test_out_is_no_setting() -> None:
    assert out_of(["a=1", "out=x", "layout=2"]) == (["a=1", "layout=2"], Path("x"))
    assert out_of(["a=1"]) == (["a=1"], None)


def test_a_folder_belongs_to_one_config(tmp_path: Path) -> None:
    run = tokenizer_run()
    open_folder(run, tmp_path)
    written = (tmp_path / "config.yaml").stat().st_mtime_ns
    open_folder(run, tmp_path)
    assert (tmp_path / "config.yaml").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="seed: 0 there, 1 here"):
        open_folder(tokenizer_run(seed=1), tmp_path)
    with pytest.raises(UserError, match="another config"):
        open_folder(generator_run("somewhere"), tmp_path)


def test_settings_that_a_config_was_saved_without_have_their_defaults(tmp_path: Path) -> None:
    """Code that gains a setting can go on with the folders that it left before."""
    run = tokenizer_run()
    open_folder(run, tmp_path)
    path = tmp_path / "config.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "num_workers" not in line) + "\n")
    open_folder(run, tmp_path)


def test_checkpoints_are_numbered_folders_that_are_whole(tmp_path: Path) -> None:
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-x", ".partial-checkpoint-11"):
        (tmp_path / name).mkdir()
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    assert finished(tokenizer_run(steps=10), tmp_path)
    assert not finished(tokenizer_run(steps=11), tmp_path)


def test_sampling_takes_overrides_of_its_own_keys(maskgit: Path) -> None:
    sampling = sampling_of(maskgit, ["guidance_scale=3", "sampler.num_steps=7"])
    assert sampling.guidance_scale == 3 and sampling.sampler is not None
    assert sampling.sampler.num_steps == 7 and sampling.clips_per_level == 4


def test_what_changed_is_named_at_most_three_times(tmp_path: Path) -> None:
    open_folder(tokenizer_run(), tmp_path)
    other = tokenizer_run("kl", seed=5, steps=9, batch_size=16)
    with pytest.raises(UserError) as raised:
        open_folder(other, tmp_path)
    assert str(raised.value).count(" there, ") == 3


def test_a_judge_of_other_factors_is_refused(judge: Path) -> None:
    dataset, _ = build(DataConfig.model_validate(DATA))
    assert load_judge(judge, dataset.factors).factors == dataset.factors
    with pytest.raises(UserError, match="this judge reads"):
        load_judge(judge, Factors(dataset.factors.items[:2]))


def test_a_digest_is_that_of_the_averaged_weights(tmp_path: Path, fsq: Path) -> None:
    other = trained(tokenizer_run(steps=1), tmp_path / "other")
    assert weights_digest(fsq) == weights_digest(fsq) != weights_digest(other)
    assert len(weights_digest(fsq)) == 12
    assert json.loads((other / "environment.json").read_text()) == read_environment(other)
