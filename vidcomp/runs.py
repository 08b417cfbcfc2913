"""Runs: what one training run is told (the root of its YAML), and the folder that it leaves.

    config.yaml   environment.json   metrics.jsonl   checkpoint-N/   samples/   scores.json

`checkpoint-N` exists only if it is complete. A folder belongs to one config: another config is refused,
never mixed in.
"""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Int64
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, SerializeAsAny
from torch import Tensor

from vidcomp.config import RootSettings, Settings, UserError, read_yaml
from vidcomp.datasets.base import DataConfig, Dataset
from vidcomp.models.generator import GeneratorConfig
from vidcomp.samplers import base as samplers
from vidcomp.seeding import permutation
from vidcomp.tokenizers import base as tokenizers

_PACKAGES = ("torch", "accelerate", "av", "decord", "numpy", "einops", "vidcomp")


class TrainConfig(Settings):
    """How a task is trained. `batch_size` is the global batch, over processes and micro-batches."""

    steps: PositiveInt
    batch_size: PositiveInt = 32
    accumulate: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.03
    betas: tuple[float, float] = (0.9, 0.98)
    grad_clip: PositiveFloat = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    mixed_precision: Literal["no", "bf16"] = "no"
    num_workers: Annotated[int, Field(ge=0)] = 0
    cache_gb: Annotated[float, Field(ge=0)] = 2.0
    log_every: PositiveInt = 10
    checkpoint_every: PositiveInt = 500
    keep_checkpoints: PositiveInt = 2
    tracker: str = "tensorboard"


class SamplingConfig(Settings):
    """How a trained generator is sampled; nothing of it is known to training.

    `sampler`: None means unmask for masked objectives and euler for continuous ones.
    """

    guidance_scale: float = 2.0
    temperature: Annotated[float, Field(ge=0)] = 1.0
    sampler: Annotated[
        SerializeAsAny[samplers.Config] | None, BeforeValidator(samplers.SAMPLERS.config)
    ] = None
    clips_per_level: PositiveInt = 64
    batch_size: PositiveInt = 64
    seed: int = 0


class EvaluateConfig(Settings):
    """Curves by level while training: every `every` steps, `clips_per_level` samples, judged by `probe` (a folder)."""

    every: PositiveInt
    probe: str
    clips_per_level: PositiveInt = 24


class TokenizerRun(RootSettings):
    """A tokenizer's run. `combinations`: what it may see; ``seen`` is an ablation, see the README."""

    name: str
    seed: int = 0
    data: DataConfig
    combinations: Literal["all", "seen"] = "all"
    tokenizer: Annotated[
        SerializeAsAny[tokenizers.Config], BeforeValidator(tokenizers.TOKENIZERS.config)
    ]
    train: TrainConfig


class GeneratorRun(RootSettings):
    """A generator's run. `tokenizer` is a run folder, or the YAML of a run that is made first if missing.

    `combinations` may be set to ``all``, and is then refused with the reason: no generator trains on
    held-out combinations.
    """

    name: str
    seed: int = 0
    data: DataConfig
    combinations: Literal["seen", "all"] = "seen"
    tokenizer: str
    generator: GeneratorConfig
    train: TrainConfig
    sampling: SamplingConfig = SamplingConfig()
    evaluate: EvaluateConfig | None = None


Run = TokenizerRun | GeneratorRun


def load_run(path: str | Path, overrides: Iterable[str] = ()) -> tuple[Run, Path | None]:
    """The run that a YAML describes, and its ``out=`` if one was given. With a `generator` it is a generator's."""
    settings, out = out_of(overrides)
    schema = GeneratorRun if "generator" in read_yaml(path, settings) else TokenizerRun
    return schema.load(path, settings), out


def out_of(overrides: Iterable[str]) -> tuple[list[str], Path | None]:
    """The overrides without ``out=DIR``, and that folder."""
    overrides = list(overrides)
    out = [o.removeprefix("out=") for o in overrides if o.startswith("out=")]
    return [o for o in overrides if not o.startswith("out=")], Path(out[-1]) if out else None


def sampling_of(folder: Path, overrides: Iterable[str]) -> SamplingConfig:
    """How the run in `folder` is sampled, with overrides of its `sampling` keys."""
    run, _ = load_run(folder / "config.yaml", [f"sampling.{override}" for override in overrides])
    if isinstance(run, TokenizerRun):
        raise UserError(f"{folder} is a tokenizer's run; sampling is a generator's")
    return run.sampling


def rows_for(purpose: Literal["training", "scoring"], dataset: Dataset) -> Int64[Tensor, " n"]:
    """Which clips are for what: a fifth is kept for scoring, and nothing is ever trained on it.

    Tokenizers, generators and probes train on the rest, so ceilings are measured on fresh clips.
    """
    order = permutation(0, "scoring clips", len(dataset))
    num_scoring = max(1, len(dataset) // 5)
    rows = order[:num_scoring] if purpose == "scoring" else order[num_scoring:]
    return rows.sort().values


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
            f"no checkpoint in {out}; train it first, for example: python tools/train.py CONFIG out={out}"
        )
    return found[-1]


def finished(run: Run, out: Path) -> bool:
    """Whether the run in `out` has taken its last step."""
    return (out / f"checkpoint-{run.train.steps}").is_dir()


def open_folder(run: Run, out: Path) -> None:
    """Make `out` the folder of `run`; refuse if it belongs to a run of another config."""
    path = out / "config.yaml"
    if path.exists():
        differing = _differences(read_yaml(path), run.model_dump(mode="json"))
        if differing:
            raise UserError(
                f"{out} holds a run of another config ({'; '.join(differing[:3])}); "
                "give another out=DIR, or remove that folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    run.save(path)


def weights_digest(out: Path) -> str:
    """Twelve hex digits of the newest EMA weights in a run folder."""
    weights = newest_checkpoint(out) / "ema.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:12]


def environment(**extra: Any) -> dict[str, Any]:
    """What a result depends on beside its config: commit, device, versions, and `extra`."""
    return {
        "commit": commit(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        "versions": {"python": platform.python_version(), **_versions()},
        "command": " ".join(sys.argv),
        **extra,
    }


def write_json(path: Path, content: Any) -> None:
    """Write under another name, then rename: the file is complete or absent."""
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)


def commit() -> str:
    """The commit of this code, with ``+changes`` if the working tree differs; "unknown" outside git."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], cwd=here, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if dirty else head


def _versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} there, {b!r} here")
    return found
