"""The folder that a run leaves, and what may be done with it.

    config.yaml   environment.json   metrics.jsonl   checkpoint-N/   samples/   scores.json

`checkpoint-N` exists only if it is complete. A folder belongs to one config, one split, one dataset
and one tokenizer: others are refused, never mixed in.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from vidcomp.config import UserError, read_yaml
from vidcomp.datasets.base import Dataset
from vidcomp.probes.base import PROBES, TrainedJudge, refuse_other_factors
from vidcomp.runs.config import Run, SamplingConfig, TokenizerRun, load_run
from vidcomp.runs.provenance import read_environment
from vidcomp.seeding import Rng
from vidcomp.world.factors import Factors

_SCORING_SHARE = 0.2


def default_folder(run: Run) -> Path:
    """``runs/<name>``."""
    return Path("runs") / run.name


def checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints in a run folder, oldest first."""
    found = [p for p in out.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("checkpoint-")))


def newest_checkpoint(out: Path) -> Path:
    """The last complete checkpoint; raises UserError if there is none."""
    found = checkpoints(out)
    if not found:
        raise UserError(
            f"no checkpoint in {out}; train it first, for example: "
            f"python tools/train.py CONFIG out={out}"
        )
    return found[-1]


def finished(run: Run, out: Path) -> bool:
    """Whether the run in `out` has taken its last step."""
    return (out / f"checkpoint-{run.train.steps}").is_dir()


def require_run(folder: Path) -> None:
    """Raise UserError unless `folder` is a run's."""
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder} is not a run folder (it has no config.yaml); train one, for example: "
            "python tools/train.py configs/generators/smoke.yaml"
        )


def open_folder(run: Run, out: Path) -> None:
    """Make `out` the folder of `run`; refuse if it belongs to a run of another config."""
    refuse_other_run(run, out)
    if not (out / "config.yaml").exists():
        out.mkdir(parents=True, exist_ok=True)
        run.save(out / "config.yaml")


def refuse_other_run(run: Run, out: Path) -> None:
    """Raise UserError if `out` is the folder of a run of another config."""
    path = out / "config.yaml"
    if not path.exists():
        return
    there, here = load_run(path)[0].model_dump(mode="json"), run.model_dump(mode="json")
    if differing := _differences(there, here):
        raise UserError(
            f"{out} holds a run of another config ({'; '.join(differing[:3])}); "
            "give another out=DIR, or remove that folder"
        )


def refuse_changed_inputs(out: Path, inputs: Mapping[str, Any]) -> None:
    """Raise UserError if a run that goes on in `out` began with another split, dataset or
    tokenizer than `inputs` says."""
    if not checkpoints(out):
        return
    known = read_environment(out)
    for name, now in inputs.items():
        then = known.get(name)
        if isinstance(now, Mapping):  # a tokenizer may have moved; its weights may not have changed
            then, now = (then or {}).get("digest"), now["digest"]
        if then != now:
            raise UserError(
                f"the {name.removesuffix('_hash')} is not the one that {out} began with ({then} "
                f"then, {now} now); restore it, or train in another out=DIR"
            )


def weights_digest(out: Path) -> str:
    """Twelve hex digits of the newest EMA weights in a run folder."""
    weights = newest_checkpoint(out) / "ema.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:12]


def note_tokenizer(folder: Path, out: Path) -> dict[str, str]:
    """What the run in `out` notes of its tokenizer: where it is as seen from `out`, since both may
    move together, and as seen by training, since `out` may be copied alone."""
    digest = weights_digest(folder)
    return {"folder": os.path.relpath(folder, out), "path": str(folder), "digest": digest}


def noted_tokenizer(noted: Mapping[str, str], out: Path) -> Path:
    """The folder that `note_tokenizer` noted; whoever reads it checks the digest. In older runs
    `folder` is what `path` is now."""
    out = out.resolve() if out.is_symlink() else out  # a study's link to a run in its store
    beside = Path(os.path.normpath(out / noted["folder"]))
    elsewhere = Path(noted.get("path", noted["folder"]))
    return elsewhere if not beside.exists() and elsewhere.exists() else beside


def sampling_of(folder: Path, overrides: Iterable[str]) -> SamplingConfig:
    """How the run in `folder` is sampled, with overrides of its `sampling` keys."""
    require_run(folder)
    run, _ = load_run(folder / "config.yaml", [f"sampling.{override}" for override in overrides])
    if isinstance(run, TokenizerRun):
        raise UserError(f"{folder} is a tokenizer's run; sampling is a generator's")
    return run.sampling


def load_judge(folder: Path, factors: Factors) -> TrainedJudge:
    """The judge that was fitted in `folder`, whichever probe it is; raises UserError if it reads
    other factors."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"no fitted judge in {folder}; fit one, for example: "
            f"python tools/probe.py fit configs/probes/motion.yaml out={folder}"
        )
    probe = PROBES.config(read_yaml(path).get("probe"))
    named = None if probe is None else probe.build(factors)
    if not isinstance(named, TrainedJudge):
        raise UserError(f"{folder} holds no fitted judge: its config.yaml is of something else")
    judge = type(named).load(folder)
    refuse_other_factors(judge.factors, factors)
    return judge


def rows_for(purpose: Literal["training", "scoring"], dataset: Dataset) -> Int64[Tensor, " n"]:
    """Which clips are for what: about a fifth is kept for scoring, and nothing ever trains on it.

    Tokenizers, generators and probes train on the rest, so ceilings are measured on fresh clips. A
    clip's group alone decides, not how many there are: of a drawn clip its index, of a file its
    content. So a smaller dataset of the same world and seed shares clips with a larger one, and
    none of those trains here and scores there. But a dataset
    has at least one group for scoring and, if it has two, one to train on.
    """
    groups = dataset.groups()
    draws = Rng.make(0, "scoring clips", groups).uniform()
    scoring = draws < _SCORING_SHARE
    if not scoring.any():
        scoring = draws == draws.amin()
    elif scoring.all() and len(groups.unique()) > 1:
        scoring = draws < draws.amax()
    return torch.nonzero(scoring if purpose == "scoring" else ~scoring)[:, 0]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} there, {b!r} here")
    return found
