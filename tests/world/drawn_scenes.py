"""3-D scenes for tests, drawn by what they should show."""

import torch
from torch import Tensor

from vidcomp.seeding import Rng
from vidcomp.world.factors import Factors
from vidcomp.world.scene3d.concepts import StyleName
from vidcomp.world.scene3d.scenes import Drawn, draw_scenes


def draw(
    style: StyleName,
    factors: Factors,
    classes: Tensor,
    *,
    index: Tensor | None = None,
    num_frames: int = 1,
    num_objects: tuple[int, int] = (1, 1),
) -> Drawn:
    """With prototypes as values; `index` are the numbers of the clips whose nuisances they have."""
    index = torch.arange(len(classes)) if index is None else index
    return draw_scenes(
        style,
        factors,
        classes,
        factors.prototypes(classes),
        Rng.make(0, "scene", index),
        num_frames=num_frames,
        num_objects=num_objects,
    )


def same_clip(classes: Tensor) -> Tensor:
    """The nuisances of clip 3 in every row."""
    return torch.full((len(classes),), 3)
