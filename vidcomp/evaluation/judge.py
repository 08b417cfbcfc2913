"""The judge: fitting one, which is what stands behind ``tools/probe.py fit``, and finding it again.

The judge's folder is complete or absent: ``config.yaml`` is written last. A finished judge is kept
as long as it was fitted by the same config, on the same dataset and tokenizers.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveInt, SerializeAsAny
from tqdm import tqdm

from vidcomp.config import RootSettings, UserError
from vidcomp.datasets.base import DataConfig, Dataset, build
from vidcomp.evaluation.clips import clip_set, with_reconstructions
from vidcomp.probes import base as probes
from vidcomp.probes.base import Judge, TrainedJudge
from vidcomp.runs import (
    environment,
    load_judge,
    read_environment,
    weights_digest,
    write_json,
)
from vidcomp.storage import prepare

_CHECKED_CLIPS = 400
"""Clips on which a fitted judge's own accuracy is measured, at most."""


class ProbeFit(RootSettings):
    """The root of a probe's YAML: the judge, what it is fitted on, and the tokenizers (run folders)
    whose look it must know. `combinations`: what it may see; ``seen`` is an ablation, since a judge
    that never saw a held-out combination may misread it."""

    name: str
    seed: int = 0
    data: DataConfig
    combinations: Literal["all", "seen"] = "all"
    tokenizers: tuple[str, ...] = ()
    clips: PositiveInt = 1600
    probe: Annotated[SerializeAsAny[probes.Config], BeforeValidator(probes.PROBES.config)]


def fit_probe(config: ProbeFit, out: Path | None = None) -> Path:
    """Fit the judge and save it in `out` (``runs/<name>``); a finished one is kept."""
    out = out or Path("runs") / config.name
    _refuse_other_folder(out)
    prepare(config.data)
    dataset, split = build(config.data)
    record: dict[str, Any] = {
        "config_hash": config.digest,
        "dataset": dataset.fingerprint,
        "tokenizers": {folder: weights_digest(Path(folder)) for folder in config.tokenizers},
    }
    if (out / "config.yaml").is_file():
        _refuse_other_fit(out, record)
        return out
    judge = config.probe.build(dataset.factors)
    if not isinstance(judge, TrainedJudge):
        raise UserError(
            f"probe {config.probe.name!r} needs no fitting: tools/probe.py RUN asks it as it is; "
            "name a trained one, such as factors"
        )
    within = split if config.combinations == "seen" else None
    clips = clip_set(dataset, "training", config.clips, seen_of=within)
    train = with_reconstructions(clips, config.tokenizers)
    fresh = with_reconstructions(clip_set(dataset, "scoring", _CHECKED_CLIPS), config.tokenizers)
    num_steps = getattr(config.probe, "steps", None)
    with tqdm(desc=f"fit {out.name}", unit="step", total=num_steps, disable=None) as bar:

        def show(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        judge.fit(train, seed=config.seed, combinations=config.combinations, progress=show)
    for source, scores in judge.check(fresh).items():
        shares = ", ".join(f"{name} {score.value:.1%}" for name, score in scores.items())
        print(f"{out}: {source}: {shares}")
    judge.save(out)
    write_json(out / "environment.json", environment(**record))
    config.save(out / "config.yaml")
    return out


def judge_of(probe: str | Path, dataset: Dataset) -> Judge:
    """The judge that was fitted in a folder, or the one of this name if it needs no fitting."""
    folder = Path(probe)
    if str(probe) in probes.PROBES.names() and not folder.is_dir():
        judge = probes.PROBES.config(str(probe)).build(dataset.factors)
        if not isinstance(judge, Judge) or isinstance(judge, TrainedJudge):
            raise UserError(
                f"probe={probe} is no judge that needs no fitting, as counting and oracle are; "
                "give the folder of a fitted one"
            )
        return judge
    judge = load_judge(folder, dataset.factors)
    if read_environment(folder)["dataset"] != dataset.fingerprint:
        raise UserError(
            f"the judge in {folder} was fitted on another dataset than this run was trained on: "
            "the clips scored may be the judge's training clips; fit one on the run's data"
        )
    return judge


def judge_name(judge: Judge) -> str:
    """As a YAML has it: that of its file."""
    return type(judge).__module__.rpartition(".")[2]


def judge_digest(folder: Path) -> str:
    """Twelve hex digits of what a fitted judge saved: ``judge_weights`` of the scores it gave.

    Judges name their files themselves, so all count but those that say how it was fitted.
    """
    about = {"config.yaml", "environment.json"}
    saved = [p for p in sorted(folder.glob("[!.]*")) if p.is_file() and p.name not in about]
    if not (folder / "config.yaml").is_file() or not saved:
        raise UserError(f"no fitted judge in {folder}; fit one there with tools/probe.py fit")
    return hashlib.sha256(b"".join(path.read_bytes() for path in saved)).hexdigest()[:12]


def _refuse_other_folder(out: Path) -> None:
    """Raise UserError if `out` is in use for something else: saving a judge replaces the folder."""
    if out.is_dir() and any(out.iterdir()) and not (out / "probe.json").is_file():
        raise UserError(f"{out} holds something else than a judge; give another out=DIR")


def _refuse_other_fit(out: Path, record: dict[str, Any]) -> None:
    """Raise UserError if the judge in `out` was fitted by another config, or on other clips."""
    path = out / "environment.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    differing = [name for name in record if known.get(name) != record[name]]
    if differing:
        raise UserError(
            f"{out} holds a judge of another {differing[0].removesuffix('_hash')}; give another "
            "out=DIR, or remove that folder"
        )
