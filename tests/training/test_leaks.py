"""Nothing leaks: whatever a dataset says of its clips beforehand, and wherever they come from, a
batch with a held-out clip never reaches a generator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from published import shapes3d_labels, write_shapes3d
from tiny import FACTORS, SPRITES, generator_run
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Clips, Dataset, build
from vidcomp.seeding import Rng
from vidcomp.storage import store
from vidcomp.training.generator_task import GeneratorTask
from vidcomp.training.tasks import training_rows

CIRCLE = {"shape": "circle", "colour": "red", "motion": "right"}
SPLITS: dict[str, dict[str, Any]] = {
    "base_novel": {"novel": {name: classes[1:] for name, classes in FACTORS.items()}},
    "predicate": {"novel": {"colour": "r > 0.5 and g < 0.15 or b > 0.95"}, "max_novel": 0},
    "range": {"rule": "range", "seen": {"size": [0.2, 0.27]}},
    "explicit": {"rule": "explicit", "train": [CIRCLE, CIRCLE | {"motion": "up"}]},
    "fraction": {"rule": "fraction", "held_out": 0.5},
    "latin": {"rule": "latin", "over": ["shape", "colour"], "symbols": [1]},
}
SHAPES3D = {"rule": "fraction", "held_out": 0.5}


class Liar(Dataset):
    """Says of every clip, beforehand, that it shows what a seen one does."""

    def __init__(self, honest: Dataset, seen: int) -> None:
        self.honest, self.seen = honest, torch.full((len(honest),), seen)
        self.factors, self.fps = honest.factors, honest.fps
        self.num_frames, self.height, self.width = honest.num_frames, honest.height, honest.width

    def __len__(self) -> int:
        return len(self.honest)

    def classes(self) -> Int64[Tensor, "n f"]:
        return self.honest.classes()[self.seen]

    def values(self) -> Float[Tensor, "n f v"]:
        return self.honest.values()[self.seen]

    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        return self.honest.clips(indices)

    @property
    def fingerprint(self) -> str:
        return self.honest.fingerprint


def stream(folder: Path, factors: dict[str, list[str]]) -> dict[str, Any]:
    return SPRITES | {"factors": factors}


def stored(folder: Path, factors: dict[str, list[str]]) -> dict[str, Any]:
    store(DATASETS.config(stream(folder, factors)), folder, workers=1)
    return {"name": "folder", "path": folder}


def published(folder: Path, factors: dict[str, list[str]]) -> dict[str, Any]:
    every = np.random.default_rng(0).choice(480_000, 200, replace=False)
    write_shapes3d(folder / "3dshapes.h5", shapes3d_labels()[np.sort(every)])
    return {"name": "shapes3d", "path": folder / "3dshapes.h5", "num_clips": 80}


@pytest.mark.parametrize(
    ("source", "split"),
    [(s, name) for s in (stream, stored) for name in SPLITS] + [(published, "shapes3d")],
)
def test_a_held_out_clip_is_refused_when_it_is_read(
    source: Callable[..., dict[str, Any]], split: str, fsq: Path, tmp_path: Path
) -> None:
    factors = FACTORS if split != "range" else {"size": ["large", "small"], "shape": ["circle"]}
    data = {"dataset": source(tmp_path, factors), "split": SPLITS.get(split, SHAPES3D)}
    job = generator_run(fsq, data=data)
    honest, rule = build(job.data)
    seen = rule.seen(honest.classes(), honest.values())
    assert 0 < seen.sum() < len(seen)

    rows = training_rows(job, honest, rule)
    task = GeneratorTask(job, honest, rule, rows, fsq)
    every = torch.arange(len(rows))
    batch = task.batch(every, Rng.make(0, "draw", every))
    assert rule.seen(batch.classes, batch.values).all()

    liar = Liar(honest, int(seen.nonzero()[0]))
    rows = training_rows(job, liar, rule)  # it is believed as to what there is
    assert not seen[rows].all()
    task = GeneratorTask(job, liar, rule, rows, fsq)
    first_held_out = (~seen[rows]).nonzero()[:1, 0]
    for encode in (lambda: None, lambda: task.encode_clips(Accelerator(cpu=True))):
        encode()  # live, and from the cache
        with pytest.raises(UserError, match="1 of 1 training clips show held-out combinations"):
            task.batch(first_held_out, Rng.make(0, "draw", first_held_out))
