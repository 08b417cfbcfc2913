"""Sampling a run to disk: what stands behind ``tools/sample.py``.

Samples are a folder dataset of their own: lossless clips, a table of what was asked for, the
factors; beside them a grid to look at and, of generators that are told of places, those that were
asked for. The folder is complete or absent.
"""

import itertools
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.folder import Config as FolderConfig
from vidcomp.evaluation.clips import asked_rows, clips_at, data_of
from vidcomp.media import Cell, grid, write_bytes, write_video
from vidcomp.models.conditioning import Condition
from vidcomp.pipeline import ClipFormat, Pipeline, roll_out
from vidcomp.probes.base import ClipSet, rows_by_level
from vidcomp.runs import GeneratorRun, SamplingConfig, weights_digest, write_json
from vidcomp.seeding import Rng
from vidcomp.types import Prediction, State, frames_from_video, video_from_frames
from vidcomp.world.locations import Locations
from vidcomp.world.manifest import Manifest
from vidcomp.world.splits import Split
from vidcomp.world.table import Table

_LOCATIONS = "locations.safetensors"
_GRID_COLUMNS = 16
_GRID_ROWS = 4


def generator_of(folder: Path) -> tuple[Pipeline, GeneratorRun]:
    """The pipeline and the config of a generator's run; raises UserError if it is a tokenizer's."""
    pipeline = Pipeline.load(folder)
    if not isinstance(pipeline.run, GeneratorRun):
        raise UserError(f"{folder} is a tokenizer's run; samples and scores are a generator's")
    return pipeline, pipeline.run


def sample_run(folder: Path, sampling: SamplingConfig | None = None) -> Path:
    """Sample every level of a run's split, evenly over its combinations, into ``RUN/samples``.

    A generator that is told of places is asked for those of all objects of real clips that nothing
    was trained on.

    Samples that are there from the same weights and settings are kept; with ``sampling=None`` those
    of any settings, and the run's own are used if there are none.
    """
    pipeline, run = generator_of(folder)
    out, previous = folder / "samples", folder / ".previous-samples"
    if previous.is_dir() and not out.exists():  # killed in the middle of the swap below
        previous.rename(out)
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
    asked = asked_condition(folder, pipeline, run, sampling, pipeline.split.level_names)
    effective: list[float] = []
    began = time.perf_counter()
    video = roll_out(
        pipeline.generator,
        pipeline.tokenizer,
        asked,
        pipeline.format.size,
        sampling,
        Rng.make(sampling.seed, "sample", torch.arange(len(asked.classes))),
        progress=f"sample {folder.name}",
        watch=lambda state, made: effective.extend(_effective_samples(state, made)),
    )
    record["sample_s"] = time.perf_counter() - began
    if effective:  # of the candidates behind each guided draw of a mixture (givt)
        record["effective_samples"] = sum(effective) / len(effective)

    partial = folder / ".partial-samples"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        samples = ClipSet(video, asked.classes, asked.values, asked.locations)
        weights, split = record["weights"], pipeline.split
        write_samples(partial, samples, pipeline.format, split, fingerprint=weights)
        write_json(partial / "sampling.json", record)
        shutil.rmtree(previous, ignore_errors=True)
        if out.exists():
            out.rename(previous)
        partial.rename(out)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def asked_condition(
    folder: Path,
    pipeline: Pipeline,
    run: GeneratorRun,
    sampling: SamplingConfig,
    levels: Sequence[str],
) -> Condition:
    """What samples of `levels` are asked to show: combinations in turn; or, of a generator that is
    told of places, those of all objects in fresh real clips."""
    split, num_clips = pipeline.split, sampling.clips_per_level
    if run.generator.conditioning.locations is None:
        requests = [split.requests(level, num_clips) for level in levels]
        classes, values = (torch.cat(parts) for parts in zip(*requests, strict=True))
        return Condition.of(classes, values)
    dataset = data_of(folder, run.data).dataset
    rows = asked_rows(dataset, split, num_clips, levels)
    real = clips_at(dataset, rows)
    assert real.locations is not None, "a run that is told of places was trained on such clips"
    return Condition.of(real.classes, real.values, real.locations.all_given())


def _effective_samples(state: State, made: Prediction) -> list[float]:
    """The mean over what was still hidden, if draws were resampled from weighted candidates."""
    if made.effective_samples is None:
        return []
    return [float(made.effective_samples[~state.known].mean())]


def write_samples(
    out: Path,
    samples: ClipSet,
    clips: ClipFormat,
    split: Split,
    *,
    fingerprint: str,
) -> None:
    """Lossless clips with their table, and ``grid.mp4``: a column for each combination, or for
    some of every level if there are many."""
    factors, frames = clips.factors, frames_from_video(samples.video)
    paths = [f"clips/{i:06d}.mp4" for i in range(len(frames))]
    (out / "clips").mkdir(parents=True, exist_ok=True)
    for path, clip in zip(paths, frames, strict=True):
        write_video(out / path, clip, fps=clips.fps)
    manifest = Manifest(
        num_clips=len(frames),
        num_frames=frames.shape[1],
        height=clips.height,
        width=clips.width,
        fps=clips.fps,
        fingerprint=fingerprint,
        factors=factors,
    )
    manifest.save(out)
    Table(factors, tuple(paths), samples.classes, samples.values).save(out)
    if samples.locations is not None:
        # What is given and what is present may be one tensor, which cannot be saved twice.
        content = {name: x.contiguous().clone() for name, x in samples.locations.tensors().items()}
        write_bytes(out / _LOCATIONS, safetensors.torch.save(content))

    shown = grid_combinations(split, _GRID_COLUMNS)
    rows_of = rows_by_level(split, samples)
    columns: list[list[Cell | None]] = []
    for level, combination in shown:
        rows = rows_of[level] & (samples.classes == combination).all(1)
        cells = [Cell(clip) for clip in frames[rows][:_GRID_ROWS]]
        columns.append([*cells, *[None] * (_GRID_ROWS - len(cells))])
    labels = [f"{level}: {factors.describe(combination)}" for level, combination in shown]
    picture = grid(list(zip(*columns, strict=True)), column_labels=labels)
    write_video(out / "grid.mp4", picture, fps=clips.fps, codec="h264")


def grid_combinations(split: Split, num_columns: int) -> list[tuple[str, Int64[Tensor, " f"]]]:
    """At most `num_columns` combinations with their levels: the levels take turns, and within one
    the combinations are evenly spaced."""
    of_level = {level: split.combinations_of(level) for level in split.level_names}
    turns = itertools.zip_longest(*([level] * len(found) for level, found in of_level.items()))
    taken = [level for turn in turns for level in turn if level is not None][:num_columns]
    shown: list[tuple[str, Int64[Tensor, " f"]]] = []
    for level, found in of_level.items():
        rows = torch.linspace(0, len(found) - 1, taken.count(level)).round().long()
        shown += [(level, combination) for combination in found[rows]]
    return shown


def read_samples(folder: Path) -> ClipSet:
    """The samples as they lie on disk: what is scored is what a person can look at."""
    dataset = FolderConfig.model_validate({"path": folder}).build()
    frames = torch.cat(
        [dataset.clips(rows).frames for rows in torch.arange(len(dataset)).split(64)]
    )
    path = folder / _LOCATIONS
    locations = Locations(**safetensors.torch.load_file(path)) if path.is_file() else None
    return ClipSet(video_from_frames(frames), dataset.classes(), dataset.values(), locations)
