"""Sampling a run to disk, fitting the judge, and scoring: what stands behind sample.py and probe.py.

Samples are a folder dataset of their own: lossless clips beside a table of what was asked for. Scores
always come with their ceilings, the same judge on real clips and on their reconstructions, on clips that
nothing was trained on.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import BeforeValidator, PositiveInt, SerializeAsAny
from torch import Tensor
from tqdm import tqdm

from vidcomp.config import RootSettings, UserError, read_yaml
from vidcomp.datasets.base import DataConfig, Dataset, build, prepare
from vidcomp.datasets.folder import Config as FolderConfig
from vidcomp.media import Cell, grid, write_video
from vidcomp.models.conditioning import Condition
from vidcomp.pipeline import Pipeline, load_tokenizer, reconstruct, sample_clips
from vidcomp.probes import base as probes
from vidcomp.probes import factors, fidelity, oracle
from vidcomp.probes.base import ClipSet, Findings, Subject
from vidcomp.runs import GeneratorRun, Run, SamplingConfig, environment, rows_for, weights_digest, write_json
from vidcomp.seeding import Rng
from vidcomp.types import Frames, Video, frames_from_video, video_from_frames
from vidcomp.world.splits import Split
from vidcomp.world.table import TABLE, Table

_EXAMPLES = 4
"""Clips of each combination and source that are kept for grids."""

_MAX_SCORED = 2000
"""Real clips behind a ceiling, at most."""


class ProbeFit(RootSettings):
    """The root of a probe's YAML: the judge, what it is fitted on, and the tokenizers whose look it must know."""

    name: str
    seed: int = 0
    data: DataConfig
    tokenizers: tuple[str, ...] = ()
    clips: PositiveInt = 1600
    probe: Annotated[SerializeAsAny[probes.Config], BeforeValidator(probes.PROBES.config)]


def fit_probe(config: ProbeFit, out: Path | None = None) -> Path:
    """Fit the judge on clips of all combinations and save it in `out` (``runs/<name>``); a finished one is kept."""
    out = out or Path("runs") / config.name
    if (out / "probe.json").is_file():
        if config.digest != read_yaml_digest(out):
            raise UserError(f"{out} holds a judge of another config; give another out=DIR, or remove that folder")
        return out
    prepare(config.data)
    dataset, _ = build(config.data)
    judge = config.probe.build(dataset.factors)
    if not isinstance(judge, probes.TrainedJudge):
        raise UserError(f"probe {config.probe.name!r} needs no fitting; name a trained one (factors)")
    with torch.no_grad():
        train = _with_reconstructions(dataset, "training", config.clips, config.tokenizers)
        held_out = _with_reconstructions(dataset, "scoring", 400, config.tokenizers)
    with tqdm(desc=f"fit {out.name}", unit="step", total=getattr(config.probe, "steps", None)) as bar:

        def show(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        judge.fit(train, seed=config.seed, progress=show)
    for source, scores in judge.check(held_out).items():
        print(f"{out}: {source}: " + ", ".join(f"{name} {score.value:.1%}" for name, score in scores.items()))
    judge.save(out)
    config.save(out / "config.yaml")
    return out


def read_yaml_digest(folder: Path) -> str:
    """The digest of the config that a judge in `folder` was fitted by; "" if it is not known."""
    path = folder / "config.yaml"
    return ProbeFit.model_validate(read_yaml(path)).digest if path.is_file() else ""


def sample_run(folder: Path, sampling: SamplingConfig | None = None) -> Path:
    """Sample every level of a run's split, evenly over its combinations, into ``RUN/samples``.

    Lossless clips and a table of what was asked for (so the folder is a dataset), a grid to look at, and
    ``sampling.json``. Samples that are there from the same weights and settings are kept; with
    ``sampling=None`` those of any settings, and the run's own are used if there are none.
    """
    pipeline, run = _generator_of(folder)
    out = folder / "samples"
    record: dict[str, Any] = {"weights": weights_digest(folder)}
    if sampling is not None:
        record["sampling"] = sampling.model_dump(mode="json")
    if (out / "sampling.json").is_file():
        kept = json.loads((out / "sampling.json").read_text())
        if {key: kept[key] for key in record} == record:
            return out
    sampling = sampling or run.sampling
    record["sampling"] = sampling.model_dump(mode="json")
    assert pipeline.generator is not None
    split = pipeline.split
    classes = torch.cat([split.requests(level, sampling.clips_per_level) for level in split.level_names])
    began = time.perf_counter()
    video = sample_clips(
        pipeline.generator,
        pipeline.tokenizer,
        pipeline.condition(classes),
        pipeline.format.size,
        sampling,
        Rng.make(sampling.seed, "sample", torch.arange(len(classes))),
        progress=f"sample {folder.name}",
    )
    seconds = time.perf_counter() - began
    write_samples(out, video, classes, pipeline)
    write_json(out / "sampling.json", {**record, "sample_s": seconds})
    return out


def write_samples(out: Path, video: Video, classes: Int64[Tensor, "b f"], pipeline: Pipeline) -> None:
    """Lossless clips with their table, and ``grid.mp4``: a column for each combination."""
    items, fps = pipeline.format.factors, pipeline.format.fps
    frames = frames_from_video(video)
    paths = [f"clips/{i:06d}.mp4" for i in range(len(frames))]
    (out / "clips").mkdir(parents=True, exist_ok=True)
    for path, clip in zip(paths, frames, strict=True):
        write_video(out / path, clip, fps=fps)
    Table(items, tuple(paths), classes, items.prototypes(classes)).save(out)
    shown = items.combinations()[:16]
    cells = [[Cell(clip) for clip in frames[(classes == row).all(1)][:_EXAMPLES]] for row in shown]
    columns = [column + [None] * (_EXAMPLES - len(column)) for column in cells]
    picture = grid(
        list(zip(*columns, strict=True)), column_labels=[items.describe(row) for row in shown]
    )
    write_video(out / "grid.mp4", picture, fps=fps, codec="h264")


def probe_run(folder: Path, judge_folder: Path) -> Path:
    """Score a run's samples, real clips and their reconstructions with every probe; write ``RUN/scores.json``.

    Also ``RUN/examples.npz``: a few clips of each combination from each source with the judge's verdicts.
    """
    pipeline, run = _generator_of(folder)
    prepare(run.data)
    dataset, split = build(run.data)
    samples = _read_samples(sample_run(folder), pipeline)
    with torch.no_grad():
        real = _clip_set(dataset, "scoring", _MAX_SCORED)
        reconstruction = ClipSet(reconstruct(pipeline.tokenizer, real.video), real.classes)
        subject = Subject({"real": real, "reconstruction": reconstruction, "samples": samples}, split)
        found: dict[str, Findings] = {"factors": factors.Judge.load(judge_folder).run(subject)}
        found["fidelity"] = fidelity.Config().build(dataset.factors).run(subject)
        try:
            found["oracle"] = oracle.Config().build(dataset.factors).run(subject)
        except UserError as error:
            print(f"{folder}: no second judge: {error}")
    recorded = json.loads((folder / "samples" / "sampling.json").read_text())
    scores = {
        name: {key: score._asdict() for key, score in findings.scores.items()}
        for name, findings in found.items()
    }
    if "oracle" in found:
        agreed = probes.agreement(found["factors"], found["oracle"])
        scores["agreement"] = {key: score._asdict() for key, score in agreed.items()}
    _save_examples(folder, subject, found["factors"])
    path = folder / "scores.json"
    write_json(
        path,
        {
            "judge": "factors",
            "judge_folder": str(judge_folder),
            "scores": scores,
            **recorded,
            "environment": environment(),
        },
    )
    return path


def summary(scores: Mapping[str, Any]) -> list[str]:
    """A line for each source and level: joint accuracy of the judge, with its interval."""
    lines: list[str] = []
    for key, s in scores["scores"][scores["judge"]].items():
        if key.endswith("/joint"):
            place = key.removesuffix("/joint")
            lines.append(
                f"{place:24s} {s['value']:6.1%}  [{s['low']:.1%}, {s['high']:.1%}]  n={s['n']}, "
                f"chance {s['chance']:.1%}"
            )
    return lines


def _generator_of(folder: Path) -> tuple[Pipeline, GeneratorRun]:
    pipeline = Pipeline.load(folder)
    if not isinstance(pipeline.run, GeneratorRun):
        raise UserError(f"{folder} is a tokenizer's run; samples and scores are a generator's")
    return pipeline, pipeline.run


def _clip_set(dataset: Dataset, purpose: Any, num_clips: int) -> ClipSet:
    rows = rows_for(purpose, dataset)[:num_clips]
    parts = [dataset.clips(chunk) for chunk in rows.split(64)]
    video = torch.cat([video_from_frames(part.frames) for part in parts])
    return ClipSet(video, torch.cat([part.classes for part in parts]))


def _with_reconstructions(
    dataset: Dataset, purpose: Any, num_clips: int, tokenizers: Sequence[str]
) -> dict[str, ClipSet]:
    """Real clips, and the same clips through each tokenizer."""
    real = _clip_set(dataset, purpose, num_clips)
    sets = {"real": real}
    for tokenizer in tokenizers:
        video = reconstruct(load_tokenizer(Path(tokenizer)), real.video)
        sets[f"reconstruction by {Path(tokenizer).name}"] = ClipSet(video, real.classes)
    return sets


def _read_samples(folder: Path, pipeline: Pipeline) -> ClipSet:
    """The samples as they lie on disk: what is scored is what a person can look at."""
    table = Table.load(folder, factors=pipeline.format.factors)
    dataset = FolderConfig(path=folder).build()
    frames = torch.cat([dataset.clips(rows).frames for rows in torch.arange(len(dataset)).split(64)])
    return ClipSet(video_from_frames(frames), table.classes)


def _save_examples(folder: Path, subject: Subject, findings: Findings) -> None:
    arrays: dict[str, Any] = {}
    combinations = subject.split.factors.combinations()
    for source, clips in subject.sets.items():
        frames, verdicts = frames_from_video(clips.video), findings.arrays[f"{source}/verdicts"]
        rows = [(clips.classes == c).all(1).nonzero()[:_EXAMPLES, 0] for c in combinations]
        count = min(len(r) for r in rows)
        chosen = torch.stack([r[:count] for r in rows])
        arrays[source] = frames[chosen].numpy()
        arrays[f"{source}_verdicts"] = verdicts[chosen].numpy()
    partial = folder / ".partial-examples.npz"
    np.savez_compressed(partial, **arrays)
    partial.replace(folder / "examples.npz")
