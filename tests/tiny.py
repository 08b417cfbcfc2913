"""A world so small that training takes a second: 5 frames of 16 x 16 pixels, 8 combinations.

Helpers for the tests of whole runs; the fixtures made of them are in conftest.py.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from vidcomp.cli import command
from vidcomp.runs import GeneratorRun, TokenizerRun
from vidcomp.training.tasks import train

ROOT = Path(__file__).parents[1]

SPLIT = {"novel": {"shape": ["triangle"], "colour": ["blue"], "motion": ["up"]}}
FACTORS = {"shape": ["circle", "triangle"], "colour": ["red", "blue"], "motion": ["right", "up"]}
SPRITES = {
    "name": "sprites",
    "num_clips": 80,
    "num_frames": 5,
    "height": 16,
    "width": 16,
    "factors": FACTORS,
}
DATA: dict[str, Any] = {"dataset": SPRITES, "split": SPLIT}
STILLS: dict[str, Any] = {
    "dataset": SPRITES | {"num_frames": 1, "factors": {k: FACTORS[k] for k in ("shape", "colour")}},
    "split": {"novel": {"shape": ["triangle"], "colour": ["blue"]}, "max_novel": 1},
}
TRAIN: dict[str, Any] = {
    "steps": 6,
    "batch_size": 8,
    "warmup_steps": 2,
    "log_every": 1,
    "checkpoint_every": 2,
    "ema_decay": 0.5,
    "tracker": "none",
}
TOKENIZERS: dict[str, dict[str, Any]] = {
    "fsq": {"name": "fsq", "levels": [5, 5, 5]},
    "vq": {"name": "vq", "codebook_size": 16, "channels": 4},
    "kl": {"name": "kl", "channels": 4},
}


def tokenizer_run(
    name: str = "fsq", *, data: Mapping[str, Any] = DATA, seed: int = 0, **train: Any
) -> TokenizerRun:
    """A run of the tokenizer `name`, with settings of `train` on top."""
    network = {"width": 16, "depth": 1, "strides": [2, 4, 4], **TOKENIZERS[name]}
    raw = {"name": name, "seed": seed, "data": data, "tokenizer": network, "train": TRAIN | train}
    return TokenizerRun.model_validate(raw)


def generator_run(
    tokenizer: "Path | str",
    objective: str = "maskgit",
    *,
    data: Mapping[str, Any] = DATA,
    seed: int = 0,
    jepa: bool = False,
    top: Mapping[str, Any] | None = None,
    **train: Any,
) -> GeneratorRun:
    """A run of a generator on `tokenizer`; `top` are keys of the root, `train` those of `train`."""
    generator = {
        "objective": objective,
        "backbone": {"depth": 2, "width": 24, "heads": 2},
        "conditioning": {"prefix": 0.3},
        "jepa": {} if jepa else None,
    }
    sampler = {"name": "unmask" if objective == "maskgit" else "euler", "num_steps": 3}
    raw: dict[str, Any] = {
        "name": objective,
        "seed": seed,
        "data": data,
        "tokenizer": str(tokenizer),
        "generator": generator,
        "train": TRAIN | {"learning_rate": 3e-3} | train,
        "sampling": {"sampler": sampler, "clips_per_level": 4},
    }
    return GeneratorRun.model_validate(raw | dict(top or {}))


def trained(run: TokenizerRun | GeneratorRun, folder: Path) -> Path:
    return train(run, folder)


def write_yaml(run: TokenizerRun | GeneratorRun, path: Path) -> Path:
    run.save(path)
    return path


def write_config(raw: Mapping[str, Any], path: Path) -> Path:
    OmegaConf.save(OmegaConf.create(dict(raw)), path)
    return path


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without the one number that depends on the machine."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "steps_per_s"} for line in lines]


def tool(name: str) -> ModuleType:
    """The module of a command-line tool."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(name: str, *argv: object) -> int:
    """The exit status of ``python tools/NAME.py ARGV...``, without a process of its own."""
    module = tool(name)
    verbs = {"probe": ("fit",), "render": ("verify", "preview")}.get(name, ())
    positional = "CONFIG" if name == "train" else "RUN"
    with pytest.raises(SystemExit) as end:
        command(
            module.__doc__,
            module.main,
            positional=positional,
            verbs=verbs,
            argv=[str(word) for word in argv],
        )
    assert isinstance(end.value.code, int)
    return end.value.code
