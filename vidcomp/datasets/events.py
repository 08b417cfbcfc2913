"""Clips of two sprites that meet: who sets off first, whether they collide, who is in front.

The controlled sprite is the coloured one; the other is grey.
"""

from pydantic import Field, model_validator

from vidcomp.datasets.sprites import Dataset, SpriteConfig
from vidcomp.world.concepts import PAIR, choose
from vidcomp.world.pair import FEWEST_FRAMES, check_pair, draw_pair


class Config(SpriteConfig):
    """Two sprites; small ones, so more pixels than for one."""

    num_frames: int = Field(default=9, ge=FEWEST_FRAMES)
    height: int = Field(default=48, ge=8)
    width: int = Field(default=48, ge=8)

    @model_validator(mode="after")
    def _can_be_seen(self) -> "Config":
        check_pair(choose(self.factors, PAIR), self.varying, self.num_frames)
        return self

    def build(self) -> Dataset:
        return Dataset(self, choose(self.factors, PAIR), draw_pair)
