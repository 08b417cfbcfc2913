"""The count world in three dimensions: N lit spheres on a floor, and where some of them are seen.

As `counting` in all but the picture, which is the ray caster's: spheres are shaded and throw
shadows, and look smaller further off. Pixels are those of the picture: `radius_px` is what the
nearest ones measure there, `speed_px` how fast they go. So nothing hides anything, up to as many
spheres as `counting` would place.

Unusual: light and camera are the same in all clips. What all clips share tells nothing of where
another object is, or what colour it has: given their places, objects are as independent as flat
ones, but for a shadow that touches a neighbour.
"""

from dataclasses import replace
from typing import NamedTuple

from einops import rearrange
from pydantic import model_validator

from vidcomp.datasets.base_drawn import Asked, DrawnConfig, DrawnDataset
from vidcomp.seeding import Rng
from vidcomp.types import Frames
from vidcomp.world.crowd import Crowd, CrowdSettings, count_factors, draw_crowd
from vidcomp.world.locations import Locations
from vidcomp.world.scene3d.floor import set_out
from vidcomp.world.scene3d.render import render_frames
from vidcomp.world.scene3d.scene import Scene
from vidcomp.world.scene3d.seen import segments, visibility
from vidcomp.world.truth import Truth


class Config(CrowdSettings, DrawnConfig):
    """Each run of n clips shows all n of `counts`, in a drawn order."""

    @model_validator(mode="after")
    def _shows_something(self) -> "Config":
        if not self.most:
            raise ValueError("counts=[0] without clutter shows the floor alone; name another count")
        return self

    def build(self) -> "Dataset":
        return Dataset(self)


class Drawn(NamedTuple):
    """Frame f of clip i is row ``i * t + f`` of `scene`."""

    crowd: Crowd
    scene: Scene


class Dataset(DrawnDataset[Drawn]):
    """Clips of N spheres."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, count_factors(config))
        self._crowd = config

    def drawn(self, asked: Asked) -> Drawn:
        rng = Rng.make(self.seed, "crowd", asked.indices)
        crowd = draw_crowd(self._crowd, asked.values[:, 0, 0].long(), rng)
        radius_px = self._crowd.radius_px
        scene = set_out(crowd, radius_px=radius_px, height=self.height, width=self.width)
        return Drawn(crowd, scene)

    def frames_of(self, drawn: Drawn) -> Frames:
        frames = render_frames(drawn.scene, height=self.height, width=self.width)
        return rearrange(frames, "(b t) h w c -> b t h w c", t=self.num_frames)

    def truth_of(self, drawn: Drawn) -> Truth:
        scene, known, t = drawn.scene, drawn.crowd.truth, self.num_frames
        shown = segments(scene, height=self.height, width=self.width)
        there = known.present[:, None, :, None]
        return replace(
            known,
            positions=rearrange(scene.centre, "c n (b t) -> b t n c", t=t).where(there, 0.0),
            segments=rearrange(shown, "(b t) h w -> b t h w", t=t),
            visibility=rearrange(visibility(scene, shown), "n (b t) -> b t n", t=t),
        )

    def locations_of(self, drawn: Drawn) -> Locations:
        return Locations.of_truth(drawn.crowd.truth, height=self.height, width=self.width)
