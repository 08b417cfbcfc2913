"""Clips straight from the renderer: one sprite, whose looks and motion are chosen or drawn."""

from abc import ABC
from collections.abc import Callable

from pydantic import model_validator

from vidcomp.datasets.base_drawn import Asked, DrawnConfig, DrawnDataset
from vidcomp.types import Frames
from vidcomp.world.concepts import choose
from vidcomp.world.factors import Factors
from vidcomp.world.single import check_single, draw_single
from vidcomp.world.sprites import Rendered, Scene, render
from vidcomp.world.truth import Truth


class SpriteConfig(DrawnConfig, ABC):
    """`factors` chooses and orders the controlled factors and their classes. `varying` names what
    varies though it is not controlled; what is in neither is drawn freely or left out, see
    `vidcomp.world.scenes`.
    """

    factors: dict[str, tuple[str, ...]]
    varying: tuple[str, ...] = ()


class Config(SpriteConfig):
    """One sprite, alone."""

    @model_validator(mode="after")
    def _can_be_seen(self) -> "Config":
        check_single(choose(self.factors), self.varying, self.num_frames)
        return self

    def build(self) -> "Dataset":
        return Dataset(self, choose(self.factors), draw_single)


class Dataset(DrawnDataset[Rendered]):
    """Clips of one world of sprites; `draw` makes its scenes."""

    def __init__(self, config: SpriteConfig, factors: Factors, draw: Callable[..., Scene]) -> None:
        super().__init__(config, factors)
        self._varying = config.varying
        self._draw_scenes = draw

    def drawn(self, asked: Asked) -> Rendered:
        scene = self._draw_scenes(
            self.factors,
            asked.classes,
            asked.values,
            asked.indices,
            seed=self.seed,
            num_frames=self.num_frames,
            height=self.height,
            width=self.width,
            varying=self._varying,
        )
        return render(scene, height=self.height, width=self.width)

    def frames_of(self, drawn: Rendered) -> Frames:
        return drawn.frames

    def truth_of(self, drawn: Rendered) -> Truth:
        return drawn.truth
