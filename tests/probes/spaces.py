"""A feature space made of given points, and a subject on it: for probes that compare clips."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.probes.base import ClipSet, Points, Subject
from vidcomp.seeding import Rng
from vidcomp.world.concepts import choose
from vidcomp.world.splits import SplitConfig

FACTORS = choose({"shape": ("circle", "square"), "colour": ("red", "blue")})
SPLIT = SplitConfig(novel={"shape": ("square",), "colour": ("blue",)}).build(FACTORS)
"""Of the four combinations the last, a blue square, is at level-1."""


@dataclass(frozen=True)
class Given:
    """Points by source."""

    by_source: Mapping[str, Float[Tensor, "b d"]]
    trained: Points | None = None

    def points(self, source: str) -> Float[Tensor, "b d"]:
        return self.by_source[source]

    def training(self) -> Points:
        assert self.trained is not None
        return self.trained


def classes_of(count: int) -> Int64[Tensor, "b 2"]:
    """So many clips of each combination, taking turns."""
    return FACTORS.combinations().repeat(count, 1)


def points_of(features: Float[Tensor, "b d"], classes: Int64[Tensor, "b 2"]) -> Points:
    return Points(features, classes, torch.ones(len(features), dtype=torch.bool))


def subject_of(
    points: Mapping[str, Float[Tensor, "b d"]],
    classes: Mapping[str, Int64[Tensor, "b 2"]],
    trained: Points | None = None,
) -> Subject:
    """Black clips that are said to show `classes` and lie at `points`."""
    sets = {
        source: ClipSet(torch.zeros(len(of), 3, 1, 2, 2), of, FACTORS.prototypes(of))
        for source, of in classes.items()
    }
    return Subject(sets, SPLIT, space=Given(points, trained))


def normal(count: int, dimensions: int, *, seed: int = 0) -> Float[Tensor, "b d"]:
    return Rng.make(seed, "points", torch.arange(count)).normal(dimensions)


def clustered(classes: Int64[Tensor, "b 2"], *, seed: int = 0) -> Float[Tensor, "b 3"]:
    """Points near a place of their combination: its class ids, and a third number that is noise."""
    centres = torch.cat([classes.float(), torch.zeros(len(classes), 1)], dim=1)
    return centres + 0.05 * normal(len(classes), 3, seed=seed)
