"""Scoring a run: what stands behind ``tools/probe.py RUN``.

One judge scores, and every probe that needs no fitting is asked as well; those of a
network's inside and those of a feature space only by name. Scores always come with their ceilings,
the same probes on real clips, on their reconstructions and, where clips can be drawn, on real clips
of the prototypes that samples are asked for; all on clips that nothing was trained on.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, SerializeAsAny, model_validator
from torch.nn import functional as F

from vidcomp.config import RootSettings, UserError
from vidcomp.evaluation.clips import clip_set, data_of
from vidcomp.evaluation.extractors import OWN
from vidcomp.evaluation.features import Look, compare_in_space
from vidcomp.evaluation.judge import judge_digest, judge_name, judge_of
from vidcomp.evaluation.locality_maps import draw_maps
from vidcomp.evaluation.model_access import look_inside
from vidcomp.evaluation.samples import generator_of, read_samples, sample_run
from vidcomp.evaluation.seen import training_latents
from vidcomp.media import write_bytes
from vidcomp.pipeline import reconstruct
from vidcomp.probes import base_features, base_network, locality
from vidcomp.probes.base import (
    PROBES,
    UNREADABLE,
    Findings,
    Score,
    Subject,
    TrainedJudge,
    agreement,
)
from vidcomp.runs import environment, read_environment, write_json
from vidcomp.types import frames_from_video

_EXAMPLES = 4
"""Clips of each combination and source that are kept for grids."""

_MAX_REAL_CLIPS = 2000
"""Real clips behind a ceiling, at most."""

_MAX_PROTOTYPES = 400
"""Real clips of the prototypes' values, at most."""

ByName = base_network.Config | base_features.Config
"""Settings of a probe that is asked by name only."""


def _by_name(raw: Any) -> Any:
    config = PROBES.config(raw)
    if not isinstance(config, ByName):
        configs = [PROBES.config(name) for name in PROBES.names()]
        legal = [c.name for c in configs if isinstance(c, ByName)]
        raise ValueError(f"{config.name} is not asked by name; legal: {', '.join(legal)}")
    return config


class Scoring(RootSettings):
    """What scoring a run is told. `probe`: the folder of a fitted judge, or the name of one that
    needs no fitting. `also`: probes of the network's inside or of a feature space, by name or with
    settings; `features`: the space of the latter (`evaluation.extractors`)."""

    probe: str
    also: tuple[Annotated[SerializeAsAny[ByName], BeforeValidator(_by_name)], ...] = ()
    features: str = OWN

    @model_validator(mode="before")
    @classmethod
    def _needs_a_judge(cls, raw: Any) -> Any:
        if "probe" not in raw:
            raise ValueError(
                "scoring takes a judge: the folder of a fitted one, such as probe=runs/probe, or "
                "the name of one that needs no fitting, such as probe=counting"
            )
        return raw


def probe_run(
    folder: Path,
    probe: "str | Path",
    *,
    also: Sequence[ByName] = (),
    features: str = OWN,
) -> Path:
    """Score a run's samples, real clips and their reconstructions; write ``RUN/scores.json``.

    Also ``RUN/examples.npz``: a few clips of each combination and source, with the verdicts;
    ``RUN/tables.npz``: what probes found that is no score, as ``retrieval/samples/confusion``; and,
    if locality is asked about, its maps: ``RUN/locality.png`` and ``RUN/locality.mp4``.
    """
    pipeline, run = generator_of(folder)
    dataset, split = data_of(folder, run.data)
    judge = judge_of(probe, dataset)
    name = judge_name(judge)
    samples = sample_run(folder)
    real = clip_set(dataset, "scoring", _MAX_REAL_CLIPS)
    reconstruction = replace(real, video=reconstruct(pipeline.tokenizer, real.video))
    sets = {"real": real, "reconstruction": reconstruction}
    prototypes = (run.data.render or run.data.dataset).build().at_prototypes()
    if prototypes is not None:
        sets["prototype"] = clip_set(prototypes, "scoring", _MAX_PROTOTYPES)
    sets["samples"] = read_samples(samples)
    latents = cache(partial(training_latents, pipeline.tokenizer, dataset, split))
    subject = Subject(sets, split, latents=latents)

    judged = judge.run(subject)
    inside = [config for config in also if isinstance(config, base_network.Config)]
    outside = [config for config in also if isinstance(config, base_features.Config)]
    weights = read_environment(folder)["tokenizer"]["digest"]
    look = Look(weights, partial(reconstruct, pipeline.tokenizer))
    in_space = compare_in_space(features, dataset, subject, outside, look)
    found = {
        name: judged,
        **ask_others(subject, folder, judge=name),
        **look_inside(pipeline, folder, subject, inside),
        **in_space.findings,
    }
    scores = {asked: _plain(findings.scores) for asked, findings in found.items()}
    if "oracle" in found and name != "oracle":
        scores["agreement"] = _plain(agreement(judged, found["oracle"], subject))
    save_examples(folder / "examples.npz", subject, judged)
    tables = {f"{n}/{key}": t for n, f in found.items() for key, t in f.tables.items()}
    _save_arrays(folder / "tables.npz", tables)
    for config in inside:
        if isinstance(config, locality.Config) and config.name in found:
            of_last = found[config.name].tables
            maps = {key: t for key, t in of_last.items() if not key.startswith("step-")}
            draw_maps(maps, folder, window=config.window)
    record = {
        "judge": name,
        "judge_folder": str(probe) if isinstance(judge, TrainedJudge) else None,
        "judge_weights": judge_digest(Path(probe)) if isinstance(judge, TrainedJudge) else None,
        "scores": scores,
        "features": in_space.about,
        **json.loads((samples / "sampling.json").read_text()),
        "environment": environment(),
    }
    write_json(folder / "scores.json", record)
    return folder / "scores.json"


@torch.no_grad()
def ask_others(subject: Subject, folder: Path, *, judge: str) -> dict[str, Findings]:
    """What the probes that need no fitting find, the judge aside; one that cannot look at these
    clips says why."""
    found: dict[str, Findings] = {}
    for name in PROBES.names():
        config = PROBES.config(name)
        if name == judge or isinstance(config, ByName):
            continue
        try:
            probe = config.build(subject.split.factors)
            if not isinstance(probe, TrainedJudge):
                found[name] = probe.run(subject)
        except UserError as error:
            print(f"{folder}: probe {name} was not asked: {error}")
    return found


def save_examples(path: Path, subject: Subject, judged: Findings) -> None:
    """A few clips of each combination, ``<source>`` (combination, clip, t h w 3) and
    ``<source>_verdicts``, in the order of `Split.occurrences`: of each level that it can have.
    Where a combination has fewer clips, black ones stand, unreadable."""
    arrays: dict[str, Any] = {}
    occurrences = subject.split.occurrences
    for source, clips in subject.sets.items():
        frames = F.pad(frames_from_video(clips.video), (0,) * 9 + (1,))
        verdicts = judged.arrays[f"{source}/verdicts"]
        verdicts = F.pad(verdicts, (0,) * 5 + (1,), value=UNREADABLE)
        levels = subject.split.levels(clips.classes, clips.values)
        rows = [
            ((clips.classes == c).all(1) & (levels == level)).nonzero()[:_EXAMPLES, 0]
            for c, level in zip(occurrences.classes, occurrences.levels, strict=True)
        ]
        nothing = len(clips.video)
        chosen = torch.stack([F.pad(r, (0, _EXAMPLES - len(r)), value=nothing) for r in rows])
        arrays[source] = frames[chosen]
        arrays[f"{source}_verdicts"] = verdicts[chosen]
    _save_arrays(path, arrays)


def summary(scores: Mapping[str, Any]) -> list[str]:
    """A line for each source and level: joint accuracy of the judge, with its interval; and recall,
    where objects have places, for samples at each N too. And one for each distance, with what it
    depends on; ``!`` stands before why it should not be believed."""
    lines: list[str] = []
    for key, score in scores["scores"][scores["judge"]].items():
        place, _, kind = key.rpartition("/")
        depth = 2 if place.startswith("samples/n/") else 1  # not the single frames
        if kind in ("joint", "recall") and place.count("/") == depth:
            chance = "unknown" if score["chance"] is None else f"{score['chance']:.1%}"
            lines.append(
                f"{place:24s} {kind:6s} {score['value']:6.1%}  [{score['low']:.1%}, "
                f"{score['high']:.1%}]  n={score['n']}, chance {chance}"
            )
    for key, score in scores["scores"].get("frechet", {}).items():
        about = scores["features"]
        lines.append(
            f"{key:32s} {score['value']:8.3g}  [{score['low']:.3g}, {score['high']:.3g}]  "
            f"n={score['n']} clips of {about['clips']}, by {about['extractor']}"
            + (f"  ! {score['flag']}" if score["flag"] else "")
        )
    return lines


def _save_arrays(path: Path, arrays: Mapping[str, torch.Tensor]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array.numpy() for name, array in arrays.items()})  # pyright: ignore
    write_bytes(path, buffer.getvalue())


def _plain(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    return {key: score._asdict() for key, score in scores.items()}
