"""What one training run is told: the root of its YAML.

A YAML with a `generator` is a generator's, any other a tokenizer's.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
)

from vidcomp.config import RootSettings, Settings, read_yaml
from vidcomp.datasets.base import DataConfig
from vidcomp.models.generator import GeneratorConfig
from vidcomp.models.guidance import GuidanceConfig
from vidcomp.samplers import base as samplers
from vidcomp.tokenizers import base as tokenizers


class TrainConfig(Settings):
    """How a task is trained. `batch_size` is the global batch, over processes and micro-batches.

    `steps`: 0 where there is nothing to train, in a tokenizer without parameters, and only there.

    `cache`: where a generator's run keeps its latents: in memory, up to `cache_gb`; on disk
    (``latents``), where other runs find them; or nowhere.
    """

    steps: NonNegativeInt
    batch_size: PositiveInt = 32
    accumulate: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.03
    betas: tuple[float, float] = (0.9, 0.98)
    grad_clip: PositiveFloat = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    # YAML 1.1 takes a bare `no` for false, on the command line too.
    mixed_precision: Annotated[
        Literal["no", "bf16"], BeforeValidator(lambda raw: "no" if raw is False else raw)
    ] = "no"
    num_workers: Annotated[int, Field(ge=0)] = 0
    cache: Literal["memory", "latents", "none"] = "memory"
    cache_gb: Annotated[float, Field(ge=0)] = 2.0
    log_every: PositiveInt = 10
    checkpoint_every: PositiveInt = 500
    keep_checkpoints: PositiveInt = 2
    tracker: str = "tensorboard"


class SamplingConfig(GuidanceConfig):
    """How a trained generator is sampled; nothing of it is known to training.

    `sampler`: None means unmask for masked objectives and euler for continuous ones.

    `num_frames`: of the samples, if more than the training clips have: the generator goes on from
    the last `overlap_frames` of its own, clip after clip (None: half a clip).
    """

    temperature: Annotated[float, Field(ge=0)] = 1.0
    sampler: Annotated[
        SerializeAsAny[samplers.Config] | None, BeforeValidator(samplers.SAMPLERS.config)
    ] = None
    num_frames: PositiveInt | None = None
    overlap_frames: PositiveInt | None = None
    clips_per_level: PositiveInt = 64
    batch_size: PositiveInt = 64
    seed: int = 0


class EvaluateConfig(Settings):
    """Curves by level while training: every `every` steps, `clips_per_level` samples, judged by
    `probe` (a folder)."""

    every: PositiveInt
    probe: str
    clips_per_level: PositiveInt = 24


class TokenizerRun(RootSettings):
    """A tokenizer's run. `combinations`: what it may see; ``seen`` is an ablation."""

    name: str
    seed: int = 0
    data: DataConfig
    combinations: Literal["all", "seen"] = "all"
    tokenizer: Annotated[
        SerializeAsAny[tokenizers.Config], BeforeValidator(tokenizers.TOKENIZERS.config)
    ]
    train: TrainConfig


class GeneratorRun(RootSettings):
    """A generator's run. `tokenizer`: a run folder, or the YAML of a run that is made first if it
    is missing.

    `combinations` may be set to ``all``, and is then refused with the reason: no generator trains
    on held-out combinations.
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
    """The run that a YAML describes, and its ``out=`` if one was given.

    With a `generator`, or a key that looks like it, it is a generator's.
    """
    settings, out = out_of(overrides)
    keys = read_yaml(path, settings).keys()
    schema = GeneratorRun if difflib.get_close_matches("generator", keys) else TokenizerRun
    return schema.load(path, settings), out


def out_of(overrides: Iterable[str]) -> tuple[list[str], Path | None]:
    """The overrides without ``out=DIR``, and that folder."""
    overrides = list(overrides)
    out = [o.removeprefix("out=") for o in overrides if o.startswith("out=")]
    return [o for o in overrides if not o.startswith("out=")], Path(out[-1]) if out else None
