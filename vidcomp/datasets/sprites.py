"""Clips straight from the renderer: a sprite whose shape, colour, size and motion are chosen or
drawn.

Nothing is stored: clip i is drawn when it is asked for, from (seed, i) alone. So another seed is a
disjoint set of the same world, as probes need, and more clips leave the first ones as they were.
"""

import hashlib
import json

import torch
from jaxtyping import Int64
from pydantic import Field, model_validator
from torch import Tensor

from vidcomp.datasets import base
from vidcomp.datasets.base import Clips
from vidcomp.world.concepts import choose
from vidcomp.world.scenes import check_frames, combinations_of, draw_scene, draw_values
from vidcomp.world.sprites import Rendered, render
from vidcomp.world.truth import Truth


class Config(base.Config):
    """`factors` chooses and orders the controlled factors and their classes; the rest is drawn
    freely.

    The combinations are balanced: each run of n clips shows all n of them, in a drawn order.
    """

    num_clips: int = Field(default=4000, ge=1)
    seed: int = 0
    num_frames: int = Field(default=9, ge=1)
    height: int = Field(default=32, ge=8)
    width: int = Field(default=32, ge=8)
    fps: float = Field(default=8.0, gt=0)
    factors: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _factors_are_known(self) -> "Config":
        check_frames(choose(self.factors), self.num_frames)
        return self

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(base.Dataset):
    """Sprites, drawn when they are asked for."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.factors = choose(config.factors)
        self.num_frames = config.num_frames
        self.height = config.height
        self.width = config.width
        self.fps = config.fps

    def __len__(self) -> int:
        return self.config.num_clips

    def classes(self) -> Int64[Tensor, "n f"]:
        return combinations_of(self.factors, torch.arange(len(self)), seed=self.config.seed)

    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        seed = self.config.seed
        rendered = self._rendered(indices)
        classes = combinations_of(self.factors, indices, seed=seed)
        return Clips(
            frames=rendered.frames,
            classes=classes,
            values=draw_values(self.factors, classes, indices, seed=seed),
        )

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth:
        return self._rendered(indices).truth

    def _rendered(self, indices: Int64[Tensor, " b"]) -> Rendered:
        self.check_indices(indices)
        scene = draw_scene(
            self.factors,
            combinations_of(self.factors, indices, seed=self.config.seed),
            indices,
            seed=self.config.seed,
            num_frames=self.num_frames,
            height=self.height,
            width=self.width,
        )
        return render(scene, height=self.height, width=self.width)

    @property
    def fingerprint(self) -> str:
        """Of the settings and the factors in their order (a mapping's digest forgets its order)."""
        text = json.dumps([self.config.digest, self.factors.to_json()])
        return hashlib.sha256(text.encode()).hexdigest()[:12]
