"""Scoring a run: what stands behind ``tools/probe.py RUN``.

The fitted judge scores, and every probe that needs no fitting is asked as well. Scores always come
with their ceilings, the same probes on real clips and on their reconstructions, on clips that
nothing was trained on.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.datasets.base import build, prepare
from vidcomp.evaluation.clips import clip_set
from vidcomp.evaluation.samples import generator_of, read_samples, sample_run
from vidcomp.media import write_bytes
from vidcomp.pipeline import reconstruct
from vidcomp.probes.base import (
    PROBES,
    UNREADABLE,
    ClipSet,
    Findings,
    Score,
    Subject,
    TrainedJudge,
    agreement,
)
from vidcomp.runs import environment, load_judge, read_environment, write_json
from vidcomp.types import frames_from_video

_EXAMPLES = 4
"""Clips of each combination and source that are kept for grids."""

_MAX_REAL_CLIPS = 2000
"""Real clips behind a ceiling, at most."""


def probe_run(folder: Path, judge_folder: Path) -> Path:
    """Score a run's samples, real clips and their reconstructions; write ``RUN/scores.json``.

    Also ``RUN/examples.npz``: a few clips of each combination and source, with the verdicts.
    """
    pipeline, run = generator_of(folder)
    prepare(run.data)
    dataset, split = build(run.data)
    if dataset.fingerprint != read_environment(folder)["dataset"]:
        raise UserError(
            f"the dataset is not the one that {folder} was trained on: its fresh clips may be the "
            "other's training clips; restore it, or train again"
        )
    judge = load_judge(judge_folder, dataset.factors)
    if read_environment(judge_folder)["dataset"] != dataset.fingerprint:
        raise UserError(
            f"the judge in {judge_folder} was fitted on another dataset than {folder} was trained "
            "on: the clips scored may be the judge's training clips; fit one on the run's data"
        )
    samples = sample_run(folder)
    real = clip_set(dataset, "scoring", _MAX_REAL_CLIPS)
    reconstruction = ClipSet(reconstruct(pipeline.tokenizer, real.video), real.classes)
    sets = {"real": real, "reconstruction": reconstruction, "samples": read_samples(samples)}
    subject = Subject(sets, split)

    judged = judge.run(subject)
    found = {_probe_name(judge): judged, **ask_others(subject, folder)}
    scores = {name: _plain(findings.scores) for name, findings in found.items()}
    if "oracle" in found:
        scores["agreement"] = _plain(agreement(judged, found["oracle"], subject))
    save_examples(folder / "examples.npz", subject, judged)
    record = {
        "judge": _probe_name(judge),
        "judge_folder": str(judge_folder),
        "judge_weights": judge_digest(judge_folder),
        "scores": scores,
        **json.loads((samples / "sampling.json").read_text()),
        "environment": environment(),
    }
    write_json(folder / "scores.json", record)
    return folder / "scores.json"


def judge_digest(folder: Path) -> str:
    """Twelve hex digits of what a fitted judge saved: ``judge_weights`` of the scores it gave.

    Judges name their files themselves, so all count but those that say how it was fitted.
    """
    about = {"config.yaml", "environment.json"}
    saved = [p for p in sorted(folder.glob("[!.]*")) if p.is_file() and p.name not in about]
    if not (folder / "config.yaml").is_file() or not saved:
        raise UserError(f"no fitted judge in {folder}; fit one there with tools/probe.py fit")
    return hashlib.sha256(b"".join(path.read_bytes() for path in saved)).hexdigest()[:12]


@torch.no_grad()
def ask_others(subject: Subject, folder: Path) -> dict[str, Findings]:
    """What the probes that need no fitting find; one that cannot look at these clips says why."""
    found: dict[str, Findings] = {}
    for name in PROBES.names():
        try:
            probe = PROBES.config(name).build(subject.split.factors)
            if not isinstance(probe, TrainedJudge):
                found[name] = probe.run(subject)
        except UserError as error:
            print(f"{folder}: probe {name} was not asked: {error}")
    return found


def save_examples(path: Path, subject: Subject, judged: Findings) -> None:
    """A few clips of each combination: ``<source>`` (combination, clip, t h w 3) and
    ``<source>_verdicts``. Where a combination has fewer clips, black ones stand, unreadable."""
    arrays: dict[str, Any] = {}
    for source, clips in subject.sets.items():
        frames = F.pad(frames_from_video(clips.video), (0,) * 9 + (1,))
        verdicts = judged.arrays[f"{source}/verdicts"]
        verdicts = F.pad(verdicts, (0,) * 5 + (1,), value=UNREADABLE)
        combinations = subject.split.factors.combinations()
        rows = [(clips.classes == c).all(1).nonzero()[:_EXAMPLES, 0] for c in combinations]
        nothing = len(clips.video)
        chosen = torch.stack([F.pad(r, (0, _EXAMPLES - len(r)), value=nothing) for r in rows])
        arrays[source] = frames[chosen]
        arrays[f"{source}_verdicts"] = verdicts[chosen]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array.numpy() for name, array in arrays.items()})
    write_bytes(path, buffer.getvalue())


def summary(scores: Mapping[str, Any]) -> list[str]:
    """A line for each source and level: joint accuracy of the judge, with its interval."""
    lines: list[str] = []
    for key, score in scores["scores"][scores["judge"]].items():
        place, _, kind = key.rpartition("/")
        if kind == "joint":
            lines.append(
                f"{place:24s} {score['value']:6.1%}  [{score['low']:.1%}, {score['high']:.1%}]  "
                f"n={score['n']}, chance {score['chance']:.1%}"
            )
    return lines


def _plain(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    return {key: score._asdict() for key, score in scores.items()}


def _probe_name(judge: TrainedJudge) -> str:
    """The name that a YAML has for it: that of its file."""
    return type(judge).__module__.rpartition(".")[2]
