"""Scoring a run of a study: its scores, and beside them what comparisons need to be believed.

``RUN/beside.json`` holds `trials` (samples with other settings, or from other weights: those as
trained instead of their average, or those of an older checkpoint) and `fallback`: of the failures
on a level that the judge reads as one combination in every frame, the share where that is a
trained one. A generator that fails by drawing what it knows has a high share; guessing gives that
of trained combinations among the wrong ones.

All in one process, because starting one takes seconds, and a study has hundreds.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from vidcomp.config import RootSettings, UserError, explain
from vidcomp.evaluation import Scoring, judge_digest, probe_run
from vidcomp.evaluation.clips import clip_set, data_of
from vidcomp.evaluation.judge import judge_of
from vidcomp.evaluation.samples import asked_condition, generator_of, read_samples
from vidcomp.pipeline import Pipeline, sample_clips
from vidcomp.probes.base import (
    ClipSet,
    Judge,
    Subject,
    TrainedJudge,
    proportion,
    rows_by_level,
)
from vidcomp.report.reading import BESIDE, SCORES
from vidcomp.runs import (
    GeneratorRun,
    SamplingConfig,
    checkpoints,
    fill,
    newest_checkpoint,
    weights_digest,
    write_json,
)
from vidcomp.seeding import Rng
from vidcomp.study.cells import merged
from vidcomp.study.config import Trial
from vidcomp.world.splits import Split

_REAL_CLIPS = 500
"""For a judge that measures them, at most."""


class Trials(RootSettings):
    """What is asked of a study's runs beside their scores. `also`: probes that scoring asks by name
    only, with settings if there are any."""

    trials: dict[str, Trial] = {}
    also: tuple[str | dict[str, Any], ...] = ()


def score_run(folder: Path, probe: str, trials: Trials) -> Path:
    """Write ``RUN/scores.json`` and ``RUN/beside.json``; what is there of them is kept.
    `probe`: the judge's folder, or its name if it needs no fitting."""
    pipeline, run = generator_of(folder)
    beside = known_beside(folder, probe)
    unasked = [name for name in trials.also if name not in beside["also"]]
    if unasked or not is_scored(folder, probe, run.sampling):
        # And those of other studies again, as scores are one file; each as it was asked last.
        anew = {_named(name) for name in unasked}
        beside["also"] = [*(a for a in beside["also"] if _named(a) not in anew), *unasked]
        raw = {"probe": probe, "also": beside["also"]}
        probe_run(folder, probe, also=Scoring.model_validate(raw).also)
    judge = judge_of(probe, data_of(folder, run.data).dataset)
    if "fallback" not in beside:
        beside["fallback"] = fallback(judge, read_samples(folder / "samples"), pipeline.split)
    for name in missing_trials(beside, trials.trials):
        trial = trials.trials[name]
        beside["trials"][name] = try_out(folder, pipeline, run, judge, trial)
        write_json(folder / BESIDE, beside)
    write_json(folder / BESIDE, beside)
    return folder / BESIDE


def scoring_is_done(folder: Path, probe: str, sampling: SamplingConfig, trials: Trials) -> bool:
    """Whether `score_run` would find everything there."""
    beside = known_beside(folder, probe)
    return (
        is_scored(folder, probe, sampling)
        and "fallback" in beside
        and all(name in beside["also"] for name in trials.also)
        and not missing_trials(beside, trials.trials)
    )


def is_scored(folder: Path, probe: str, sampling: SamplingConfig) -> bool:
    """Whether there are scores by this judge, of these weights and of samples that were drawn like
    this."""
    if not (folder / SCORES).is_file():
        return False
    made = json.loads((folder / SCORES).read_text())
    made["judge_name"] = Path(made["judge_folder"] or made["judge"]).name
    asked = {"sampling": sampling.model_dump(mode="json"), **_makers(folder, probe)}
    return all(made.get(key) == now for key, now in asked.items())


def known_beside(folder: Path, probe: str) -> dict[str, Any]:
    """What was measured of these weights, by this judge."""
    makers = _makers(folder, probe)
    path = folder / BESIDE
    known = json.loads(path.read_text()) if path.is_file() else {}
    same = known and all(known.get(key) == now for key, now in makers.items())
    return known if same else {**makers, "trials": {}, "also": []}


def missing_trials(beside: Mapping[str, Any], trials: Mapping[str, Trial]) -> list[str]:
    """The names of those without a result."""
    known = {name: Trial.model_validate(found["asked"]) for name, found in beside["trials"].items()}
    return [name for name, trial in trials.items() if known.get(name) != trial]


def _named(asked: str | dict[str, Any]) -> str:
    return asked if isinstance(asked, str) else asked["name"]


def tried_sampling(sampling: SamplingConfig, trial: Trial) -> SamplingConfig:
    """How a trial draws its samples; raises UserError if it says nothing legal."""
    raw = merged(sampling.model_dump(mode="json"), trial.set)
    try:
        return SamplingConfig.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"sampling of a trial: {explain(error)}") from None


def tried_weights(folder: Path, trial: Trial) -> dict[str, Tensor]:
    """The weights that a trial draws from; raises UserError if that checkpoint is not there."""
    left = {int(path.name.removeprefix("checkpoint-")): path for path in checkpoints(folder)}
    step = max(left) if trial.checkpoint is None else trial.checkpoint
    if step not in left:
        raise UserError(
            f"no checkpoint of step {step} in {folder}; left are {', '.join(map(str, left))}: name "
            "one of these, or train it again with a larger train.keep_checkpoints"
        )
    kind = "model" if trial.weights == "raw" else "ema"
    weights = load_file(left[step] / f"{kind}.safetensors")
    return {name: w for name, w in weights.items() if not name.startswith("jepa.")}


def _makers(folder: Path, probe: str) -> dict[str, str]:
    """Who made the scores of a run. Weights that were not brought along from another machine are
    not asked for: the names of both folders are hashes of their configs."""
    makers = {"judge_name": Path(probe).name}
    if checkpoints(folder) and (newest_checkpoint(folder) / "ema.safetensors").is_file():
        makers["weights"] = weights_digest(folder)
    if (Path(probe) / "config.yaml").is_file():
        makers["judge_weights"] = judge_digest(Path(probe))
    return makers


def fallback(judge: Judge, samples: ClipSet, split: Split) -> dict[str, dict[str, Any]]:
    """By level: see the module's text. Nothing for one factor: there is no combination to fall back
    on."""
    if len(split.factors) < 2:
        return {}
    verdicts = judge.read(samples.video)
    first = verdicts[:, 0]
    steady = (verdicts == first[:, None]).all(-1).all(-1)
    is_class = (first >= 0).all(-1)
    read = first.clamp_min(0)
    trained = split.seen(read, split.factors.prototypes(read))
    combinations = split.factors.combinations()
    is_trained = split.seen(combinations, split.factors.prototypes(combinations))
    failed = steady & is_class & ~(first == samples.classes).all(-1)
    found: dict[str, dict[str, Any]] = {}
    for level, rows in rows_by_level(split, samples).items():
        asked_for_trained = int(level == "seen")
        chance = (int(is_trained.sum()) - asked_for_trained) / (len(combinations) - 1)
        found[level] = proportion(trained[rows & failed], chance=chance)._asdict()
    return found


@torch.no_grad()
def try_out(
    folder: Path, pipeline: Pipeline, run: GeneratorRun, judge: Judge, trial: Trial
) -> dict[str, Any]:
    """What the judge says of samples drawn as `trial` says: joint accuracy by level, and, of one
    that needs no fitting, all its scores."""
    generator, split = pipeline.generator, pipeline.split
    assert generator is not None
    if trial.weights == "raw" or trial.checkpoint is not None:
        generator = copy.deepcopy(generator)
        fill(generator, tried_weights(folder, trial), folder)
    sampling = tried_sampling(run.sampling, trial)
    levels = trial.levels or split.level_names
    asked = asked_condition(folder, pipeline, run, sampling, levels)
    video = sample_clips(
        generator,
        pipeline.tokenizer,
        asked,
        pipeline.format.size,
        sampling,
        Rng.make(sampling.seed, "trial", torch.arange(len(asked.classes))),
    )
    sets = {"samples": ClipSet(video, asked.classes, asked.values, asked.locations)}
    fitted = isinstance(judge, TrainedJudge)
    if not fitted:  # it measures what an object looks like on real clips
        sets["real"] = clip_set(data_of(folder, run.data).dataset, "scoring", _REAL_CLIPS)
    scores = judge.run(Subject(sets, split)).scores
    at = {level: f"samples/{level}/joint" for level in levels}
    made = {path: s._asdict() for path, s in scores.items() if path.startswith("samples/")}
    return {
        "asked": trial.model_dump(mode="json"),
        "joint": {level: made[path] for level, path in at.items() if path in made},
        "scores": {} if fitted else made,
    }
