"""Lit 3-D clips and stills straight from the ray caster: ``style: clevr`` or ``style: room``."""

from einops import rearrange
from pydantic import Field, model_validator

from vidcomp.datasets.base_drawn import Asked, DrawnConfig, DrawnDataset
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.concepts import choose
from vidcomp.world.scene3d.concepts import LIBRARIES, StyleName
from vidcomp.world.scene3d.render import render_frames
from vidcomp.world.scene3d.scenes import Drawn, draw_scenes
from vidcomp.world.scene3d.seen import truth_of
from vidcomp.world.scenes import check_frames
from vidcomp.world.truth import Truth


class Config(DrawnConfig):
    """`factors` chooses and orders the controlled factors of solid 0 and their classes; the rest is
    drawn freely. `num_objects`: the fewest and the most solids in a clip, the controlled one
    included, of which every frame shows half or more.
    """

    style: StyleName
    height: int = Field(default=64, ge=8)
    width: int = Field(default=64, ge=8)
    num_objects: tuple[int, int] = (1, 1)
    factors: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _can_be_drawn(self) -> "Config":
        check_frames(choose(self.factors, LIBRARIES[self.style]), self.num_frames)
        fewest, most = self.num_objects
        if not 1 <= fewest <= most <= 10:
            raise ValueError(
                f"num_objects={list(self.num_objects)} is not [fewest, most]; legal: 1 to 10"
            )
        if self.style == "room" and most > 1:
            raise ValueError("num_objects: a room holds 1 object; style: clevr takes up to 10")
        return self

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(DrawnDataset[Drawn]):
    """3-D scenes."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, choose(config.factors, LIBRARIES[config.style]))
        self._style: StyleName = config.style
        self._num_objects = config.num_objects

    def drawn(self, asked: Asked) -> Drawn:
        return draw_scenes(
            self._style,
            self.factors,
            asked.classes,
            asked.values,
            Rng.make(self.seed, "scene", asked.indices),
            num_frames=self.num_frames,
            num_objects=self._num_objects,
        )

    def frames_of(self, drawn: Drawn) -> Frames:
        frames = render_frames(drawn.scene, height=self.height, width=self.width)
        return rearrange(frames, "(b t) h w c -> b t h w c", t=self.num_frames)

    def truth_of(self, drawn: Drawn) -> Truth:
        return truth_of(drawn, height=self.height, width=self.width)
