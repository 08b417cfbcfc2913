"""Samples on disk, the fitted judge, and scores that never stand without their ceilings."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import DATA, generator_run, run_tool, tokenizer_run, trained

from vidcomp.config import UserError
from vidcomp.datasets.base import DataConfig, build
from vidcomp.datasets.folder import Config as FolderConfig
from vidcomp.evaluation import ProbeFit, fit_probe, judge_digest, probe_run, sample_run
from vidcomp.evaluation.clips import asked_rows, clip_set
from vidcomp.evaluation.samples import grid_combinations, read_samples
from vidcomp.evaluation.scores import save_examples
from vidcomp.media import read_video
from vidcomp.pipeline import Pipeline
from vidcomp.probes.base import UNREADABLE, Findings, Subject
from vidcomp.runs import GeneratorRun, newest_checkpoint, rows_for, sampling_of, weights_digest
from vidcomp.types import frames_from_video, video_from_frames

LEVELS = ("seen", "level-1", "level-2")


def copied(run: Path, to: Path) -> Path:
    """A copy of a run below `to`, beside what it needs."""
    (to / "fsq").symlink_to(run.parent / "fsq")
    return Path(shutil.copytree(run, to / run.name))


@pytest.fixture
def run(maskgit: Path, tmp_path: Path) -> Path:
    """A copy of a trained run, without samples."""
    return copied(maskgit, tmp_path)


def stamps(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".index.json"]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_samples_are_a_dataset_of_what_was_asked_for(run: Path) -> None:
    samples = sample_run(run)
    pipeline = Pipeline.load(run, device="cpu")
    dataset = FolderConfig.model_validate({"path": samples}).build()
    assert dataset.factors == pipeline.format.factors
    asked = torch.cat([pipeline.split.requests(level, 4).classes for level in LEVELS])
    assert torch.equal(dataset.classes(), asked) and len(dataset) == 12
    clips = dataset.clips(torch.arange(12))
    assert clips.frames.shape == (12, 5, 16, 16, 3)
    torch.testing.assert_close(clips.values, pipeline.format.factors.prototypes(asked))
    assert torch.equal(frames_from_video(read_samples(samples).video), clips.frames)


def test_samples_are_those_of_generate(run: Path) -> None:
    """Lossless: what lies on disk is what `generate` gives for the same seed."""
    samples = read_samples(sample_run(run))
    pipeline = Pipeline.load(run, device="cpu")
    made = pipeline.generate(pipeline.condition(samples.classes), seed=0)
    assert torch.equal(frames_from_video(samples.video), frames_from_video(made))


def test_a_grid_lies_beside_the_clips(run: Path) -> None:
    picture = read_video(sample_run(run) / "grid.mp4")
    assert len(picture) == 5 and picture.float().std() > 1


def test_a_grid_of_few_columns_has_some_of_every_level() -> None:
    _, split = build(DataConfig.model_validate(DATA))
    shown = grid_combinations(split, 5)
    assert [level for level, _ in shown] == ["seen", "seen", "level-1", "level-1", "level-2"]
    everything = grid_combinations(split, 16)
    assert len({tuple(c.tolist()) for _, c in everything}) == len(everything) == 8
    for level, combination in [*shown, *everything]:
        assert (split.combinations_of(level) == combination).all(1).any()


def test_where_numbers_decide_samples_are_asked_for_with_numbers_of_their_level(
    fsq: Path, tmp_path: Path
) -> None:
    data = DATA | {"split": {"novel": {"colour": "r > 0.9", "motion": ["up"]}, "max_novel": 0}}
    folder = trained(generator_run(fsq, data=data, steps=2), tmp_path / "run")
    samples, pipeline = read_samples(sample_run(folder)), Pipeline.load(folder, device="cpu")
    split, (classes, levels) = pipeline.split, pipeline.split.occurrences
    assert len(classes) == 12 and split.level_names == ("seen", "level-1", "level-2")
    asked = [split.requests(level, 4) for level in split.level_names]
    found = split.levels(samples.classes, samples.values).tolist()
    assert found == [k for k, r in enumerate(asked) for _ in r.classes]
    assert torch.equal(samples.values, torch.cat([r.values for r in asked]))
    verdicts = samples.classes[:, None].repeat(1, 5, 1)
    save_examples(
        tmp_path / "examples.npz",
        Subject({"samples": samples}, split),
        Findings(arrays={"samples/verdicts": verdicts}),
    )
    with np.load(tmp_path / "examples.npz") as stored:
        kept = torch.from_numpy(stored["samples_verdicts"])
    for row, (combination, level) in enumerate(zip(classes, levels, strict=True)):
        same = (samples.classes == combination).all(1) & (torch.tensor(found) == level)
        shown = (kept[row] == combination).flatten(1).all(1)
        assert shown.sum() == min(len(kept[row]), same.sum()) > 0


def test_samples_are_kept_until_weights_or_settings_change(run: Path) -> None:
    samples = sample_run(run)
    first = stamps(samples)
    assert sample_run(run) == samples and stamps(samples) == first
    assert stamps(sample_run(run, sampling_of(run, []))) == first
    fewer = sampling_of(run, ["clips_per_level=2"])
    sample_run(run, fewer)
    assert len(list((samples / "clips").glob("*.mp4"))) == 9, "no clip of before is left"
    second = stamps(samples)
    assert stamps(sample_run(run)) == second, "without settings those that are there are kept"
    newest_checkpoint(run).rename(run / "checkpoint-0")
    assert weights_digest(run) != json.loads((samples / "sampling.json").read_text())["weights"]
    sample_run(run)
    assert len(list((samples / "clips").glob("*.mp4"))) == 12


def test_interrupted_sampling_leaves_the_samples_of_before(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidcomp.evaluation import samples as module

    samples = sample_run(run)
    before = stamps(samples)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        sample_run(run, sampling_of(run, ["seed=1"]))
    assert stamps(samples) == before
    assert not (run / ".partial-samples").exists()


@pytest.mark.parametrize("death", ["before", "after"])
def test_a_kill_while_samples_are_swapped_loses_none(
    run: Path, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    """Whatever moment the process dies at, the next one finds whole samples."""
    samples = sample_run(run)
    before = {Path(path).name for path in stamps(samples)}
    rename = Path.rename

    def die(path: Path, target: Path) -> Path:
        if death == "after":
            rename(path, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            sample_run(run, sampling_of(run, ["seed=1"]))
    assert sample_run(run) == samples
    assert {Path(path).name for path in stamps(samples)} == before
    assert json.loads((samples / "sampling.json").read_text())["sampling"]["seed"] == 0
    sample_run(run, sampling_of(run, ["seed=1"]))
    assert json.loads((samples / "sampling.json").read_text())["sampling"]["seed"] == 1
    assert not list(run.glob(".*samples"))


@pytest.fixture(scope="module")
def scored(maskgit: Path, judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copied(maskgit, tmp_path_factory.mktemp("scored"))
    assert run_tool("probe", folder, f"probe={judge}") == 0
    return folder


def scores_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text())


def test_scores_come_with_their_ceilings(scored: Path) -> None:
    scores = scores_of(scored)
    assert scores["judge"] == "factors"
    judged = scores["scores"]["factors"]
    for source in ("real", "reconstruction", "samples"):
        for level in LEVELS:
            joint = judged[f"{source}/{level}/joint"]
            assert joint["low"] <= joint["value"] <= joint["high"]
            assert joint["chance"] == pytest.approx(1 / 8)
            assert f"{source}/{level}/factor/motion" in judged
            assert f"{source}/{level}/frame/4" in judged
    assert all(judged[f"samples/{level}/joint"]["n"] == 4 for level in LEVELS)
    assert scores["weights"] == weights_digest(scored) and scores["sample_s"] > 0


def test_probes_that_need_no_fitting_are_asked_too(scored: Path) -> None:
    scores = scores_of(scored)["scores"]
    assert scores["oracle"]["real/seen/joint"]["value"] > 0.5
    assert "reconstruction/seen/psnr_db" in scores["fidelity"]
    sources = ("real", "reconstruction", "samples", "prototype")
    assert scores["agreement"].keys() == {f"{s}/{level}" for s in sources for level in LEVELS}


def test_scores_are_of_the_clips_on_disk(scored: Path, judge: Path) -> None:
    from vidcomp.probes.base import score_verdicts
    from vidcomp.runs import load_judge

    pipeline = Pipeline.load(scored, device="cpu")
    fitted = load_judge(judge, pipeline.format.factors)
    samples = read_samples(scored / "samples")
    rows = pipeline.split.levels(samples.classes, samples.values) == 1
    expected = score_verdicts(
        fitted.read(samples.video)[rows], samples.classes[rows], pipeline.format.factors
    )
    found = scores_of(scored)["scores"]["factors"]["samples/level-1/joint"]
    assert found["value"] == expected["joint"].value and found["n"] == int(rows.sum())


def test_ceilings_are_of_clips_that_nothing_trained_on(scored: Path) -> None:
    run = Pipeline.load(scored).run
    dataset, _ = build(run.data)
    real = clip_set(dataset, "scoring", 999)
    assert torch.equal(real.classes, dataset.classes()[rows_for("scoring", dataset)])
    counted = [
        score["n"]
        for key, score in scores_of(scored)["scores"]["factors"].items()
        if key.startswith("real/") and key.endswith("/joint")
    ]
    assert sum(counted) == len(rows_for("scoring", dataset))
    fresh = {clip.numpy().tobytes() for clip in frames_from_video(real.video)}
    trained_on = clip_set(dataset, "training", 999)
    assert len(clip_set(dataset, "training", 3).video) == 3
    assert not fresh & {clip.numpy().tobytes() for clip in frames_from_video(trained_on.video)}


def test_examples_are_those_clips_with_their_verdicts(scored: Path, judge: Path) -> None:
    from vidcomp.runs import load_judge

    fitted = load_judge(judge, Pipeline.load(scored).format.factors)
    with np.load(scored / "examples.npz") as stored:
        assert set(stored.files) == {
            name
            for source in ("real", "reconstruction", "samples", "prototype")
            for name in (source, f"{source}_verdicts")
        }
        frames, verdicts = stored["samples"], stored["samples_verdicts"]
    assert frames.shape == (8, 4, 5, 16, 16, 3) and verdicts.shape == (8, 4, 5, 3)
    is_there = frames.any((2, 3, 4, 5))  # black ones stand where there are no more
    # Requests: 4 seen and 3 level-1 combinations share four clips, the level-2 one has all of four.
    assert is_there.sum(1).tolist() == [1, 1, 1, 2, 1, 1, 1, 4]
    assert (frames[~is_there] == 0).all() and (verdicts[~is_there] == UNREADABLE).all()
    video = video_from_frames(torch.from_numpy(frames[is_there]))
    assert torch.equal(fitted.read(video), torch.from_numpy(verdicts[is_there]))


def test_the_tool_prints_a_line_for_each_source_and_level(
    scored: Path, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tool("probe", scored, f"probe={judge}") == 0
    printed = capsys.readouterr().out
    for source in ("real", "reconstruction", "samples"):
        for level in LEVELS:
            assert f"{source}/{level} " in printed
    assert "n=4, chance 12.5%" in printed


def test_another_dataset_has_no_fresh_clips_for_this_run(run: Path, judge: Path) -> None:
    path = run / "environment.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | {"dataset": "elsewhere"}))
    with pytest.raises(UserError, match="the dataset is not the one"):
        probe_run(run, judge)


def test_a_judge_of_another_dataset_scores_nothing(run: Path, judge: Path, tmp_path: Path) -> None:
    other = tmp_path / "judge"
    shutil.copytree(judge, other)
    known = json.loads((other / "environment.json").read_text())
    (other / "environment.json").write_text(json.dumps(known | {"dataset": "elsewhere"}))
    with pytest.raises(UserError, match=r"judge .* was fitted on another dataset"):
        probe_run(run, other)
    assert not (run / "scores.json").exists()


def test_scores_tell_which_weights_judged(scored: Path, judge: Path, tmp_path: Path) -> None:
    assert scores_of(scored)["judge_weights"] == judge_digest(judge)
    other = fit_probe(fitting(), tmp_path / "other")
    assert judge_digest(other) != judge_digest(judge)
    with pytest.raises(UserError, match="no fitted judge in"):
        judge_digest(tmp_path / "nowhere")


def fitting(**changed: Any) -> ProbeFit:
    probe = {"name": "factors", "width": 8, "steps": 2, "batch_size": 8}
    return ProbeFit.model_validate({"name": "judge", "data": DATA, "probe": probe} | changed)


def test_a_fitted_judge_is_kept_and_another_is_refused(tmp_path: Path, capsys) -> None:
    out = fit_probe(fitting(), tmp_path / "judge")
    assert "real: shape" in capsys.readouterr().out
    before = stamps(out)
    assert fit_probe(fitting(), out) == out and stamps(out) == before
    with pytest.raises(UserError, match="holds a judge of another config"):
        fit_probe(fitting(seed=1), out)
    assert stamps(out) == before


def test_a_judge_that_was_not_finished_is_fitted_again(tmp_path: Path) -> None:
    out = fit_probe(fitting(), tmp_path / "judge")
    (out / "config.yaml").unlink()  # written last
    assert (fit_probe(fitting(), out) / "config.yaml").is_file()


def test_a_judge_never_replaces_anything_else(fsq: Path) -> None:
    before = stamps(fsq)
    with pytest.raises(UserError, match="holds something else"):
        fit_probe(fitting(), fsq)
    assert stamps(fsq) == before


def test_a_judge_knows_the_tokenizers_it_was_fitted_with(fsq: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(fsq, tokenizer)
    config = fitting(tokenizers=[str(tokenizer)])
    out = fit_probe(config, tmp_path / "judge")
    accuracy = json.loads((out / "probe.json").read_text())["accuracy"]
    assert accuracy.keys() == {"real", "blurred", "spoiled", "reconstruction by tokenizer"}
    newest_checkpoint(tokenizer).rename(tokenizer / "checkpoint-0")
    with pytest.raises(UserError, match="another tokenizers"):
        fit_probe(config, out)


def test_a_probe_that_needs_no_fitting_is_not_fitted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'oracle' needs no fitting"):
        fit_probe(fitting(probe={"name": "oracle"}), tmp_path / "judge")


def test_a_judge_may_be_kept_from_held_out_combinations() -> None:
    dataset, split = build(DataConfig.model_validate(DATA))
    everything = clip_set(dataset, "training", 1000)
    seen = clip_set(dataset, "training", 1000, seen_of=split)
    assert split.seen(seen.classes, seen.values).all()
    num_seen = int(split.seen(everything.classes, everything.values).sum())
    assert 0 < len(seen.video) == num_seen < len(everything.video)


PLACES: dict[str, Any] = {
    "dataset": {
        "name": "counting",
        "num_clips": 120,
        "height": 16,
        "width": 16,
        "radius_px": 2,
        "counts": [0, 1, 2, 3],
        "label": "one",
    },
    "split": {"rule": "range", "seen": {"count": [1, 2]}},
}


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is told of places, with its scores by a judge that needs no fitting."""
    folder = tmp_path_factory.mktemp("placed")
    tokenizer = trained(tokenizer_run(data=PLACES, steps=2), folder / "fsq")
    run = generator_run(tokenizer, data=PLACES, steps=2).model_dump(mode="json")
    run["generator"]["conditioning"] = {"tell": [], "locations": {}}
    trained(GeneratorRun.model_validate(run), folder / "run")
    assert run_tool("probe", folder / "run", "probe=counting") == 0
    return folder / "run"


def test_samples_are_asked_for_at_the_places_of_fresh_real_clips(placed: Path) -> None:
    dataset, split = build(DataConfig.model_validate(PLACES))
    samples = read_samples(placed / "samples")
    fresh = clip_set(dataset, "scoring", 999)
    assert samples.locations is not None and fresh.locations is not None
    assert torch.equal(samples.locations.given, samples.locations.present), "asked for all"
    assert split.levels(samples.classes, samples.values).tolist() == [0] * 4 + [1] * 4
    assert samples.classes[:, 0].tolist() == [1, 2, 1, 2, 0, 3, 0, 3], "evenly over the counts"
    assert torch.equal(samples.locations.present.sum(1), samples.classes[:, 0])
    points = {x.numpy().tobytes() for x in fresh.locations.points}
    told = {x.numpy().tobytes() for x in samples.locations.points}
    assert told <= points and len(told) == 7, "the two clips of nothing have the same places"


def test_clips_take_turns_where_more_are_asked_for_than_there_are() -> None:
    dataset, split = build(DataConfig.model_validate(PLACES))
    fresh = rows_for("scoring", dataset)
    rows = asked_rows(dataset, split, 100, split.level_names).reshape(2, 100)
    assert torch.isin(rows, fresh).all()
    for of_level, counts in zip(rows, ([1, 2], [0, 3]), strict=True):
        assert (
            split.levels(dataset.classes()[of_level], dataset.values()[of_level]).unique().numel()
            == 1
        )
        for count in counts:
            uses = of_level[dataset.classes()[of_level, 0] == count].bincount()
            uses = uses[uses > 0]
            assert uses.sum() == 50 and uses.amax() - uses.amin() <= 1
            assert len(uses) == (dataset.classes()[fresh, 0] == count).sum()
    few = PLACES | {"dataset": PLACES["dataset"] | {"num_clips": 8}}
    dataset, split = build(DataConfig.model_validate(few))
    with pytest.raises(UserError, match="no fresh clip shows '1'"):
        asked_rows(dataset, split, 4, split.level_names)


def test_a_judge_that_needs_no_fitting_is_named(
    placed: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = scores_of(placed)
    assert scores["judge"] == "counting"
    assert scores["judge_folder"] is None and scores["judge_weights"] is None
    found = scores["scores"]["counting"]
    assert found["real/n/3/recall"]["value"] > 0.99 and found["samples/n/3/recall"]["n"] == 2
    assert "samples/level-1/joint" not in found, "one of several objects is told of"
    assert run_tool("probe", placed, "probe=counting") == 0
    printed = capsys.readouterr().out
    assert "samples/n/3" in printed and "real/level-1" in printed and "real/n/3" not in printed
    assert run_tool("probe", run, "probe=oracle") == 0
    scores = scores_of(run)
    assert scores["judge"] == "oracle" and "agreement" not in scores["scores"]
    assert run_tool("probe", run, "probe=factors") == 2
    assert "no judge that needs no fitting" in capsys.readouterr().err
    with pytest.raises(UserError, match="reads the one factor 'count'"):
        probe_run(run, "counting")
