"""From (seed, index, classes) to what happens: solids that slide, turn and collide, light, camera.

Solid 0 is the one that the factors control. The others are distractors: where a factor is
controlled, they take the classes that the config does not name (if there are any), so it is clear
which solid is meant. Whatever is not controlled is drawn freely, and independently of the classes:
the place of solid 0, for instance, never tells its size or motion. But solid 0 can always be seen:
where the others hide it, they stand elsewhere.

Every draw is a pure function of (seed, index), so clip i is the same in any batch.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.seeding import Rng
from vidcomp.world.factors import Factors
from vidcomp.world.physics import Motion, simulate
from vidcomp.world.scene3d.attributes import Attribute, attribute_of
from vidcomp.world.scene3d.concepts import LIBRARIES, StyleName
from vidcomp.world.scene3d.places import find_places
from vidcomp.world.scene3d.scene import Scene
from vidcomp.world.scene3d.sight import share_seen
from vidcomp.world.scene3d.solids import HALF_HEIGHTS, by_shape
from vidcomp.world.scene3d.studio import between, cos_sin, draw_camera, draw_lamps
from vidcomp.world.scene3d.styles import STYLES, Style

TRAVEL = (0.9, 1.5)
"""How far a moving solid would go over the clip without a collision, in world units."""

MAX_SPIN_RAD = 1.5
"""The most that a moving solid turns over the clip."""

LEAST_SEEN = 0.5
"""The share of solid 0 that every frame shows, at least: nobody can tell what is hidden."""

SIGHT_PX = 64
"""The side of the frame in which that is measured, whatever the size of the picture."""

ATTEMPTS = 16
"""How often the other solids are placed anew where they hide solid 0, before they are left out."""

FAR_BELOW = -100.0
"""The height of solids that are not there, where they shade nothing."""

METAL = 1
"""The class of material that is a mirror; the other is rubber."""


@dataclass(frozen=True)
class Drawn:
    """Frame f of clip i is row ``i * t + f`` of `scene`."""

    scene: Scene
    motion: Motion
    present: Bool[Tensor, "b n"]

    def replaced(self, rows: Int64[Tensor, " r"], others: "Drawn") -> "Drawn":
        """The same, but with `others` as the clips `rows`."""
        t = self.motion.positions.shape[1]
        frames = (rows[:, None] * t + torch.arange(t)).flatten()
        return Drawn(
            _replaced(self.scene, -1, frames, others.scene),
            _replaced(self.motion, 0, rows, others.motion),
            self.present.index_copy(0, rows, others.present),
        )


def draw_scenes(
    style_name: StyleName,
    factors: Factors,
    classes: Int64[Tensor, "b f"],
    values: Float[Tensor, "b f v"],
    rng: Rng,
    *,
    num_frames: int,
    num_objects: tuple[int, int],
) -> Drawn:
    """Clips that show `classes`, with these `values`; fewest and most solids in `num_objects`.

    Where others hide solid 0, they are placed anew.
    """

    draw = functools.partial(
        _draw, style_name, factors, num_frames=num_frames, num_objects=num_objects
    )
    rows = torch.arange(len(rng))
    drawn = latest = draw(classes, values, rng, attempt=0)
    for attempt in range(1, ATTEMPTS + 1 if num_objects[1] > 1 else 1):
        share = share_seen(latest.scene, 0, side=SIGHT_PX)
        hidden = (share.reshape(len(rows), num_frames) < LEAST_SEEN).any(1)
        rows = rows[hidden]
        if not len(rows):
            break
        latest = draw(classes[rows], values[rows], rng[rows], attempt=attempt)
        drawn = drawn.replaced(rows, latest)
    return drawn


def _draw(
    style_name: StyleName,
    factors: Factors,
    classes: Int64[Tensor, "b f"],
    values: Float[Tensor, "b f v"],
    rng: Rng,
    *,
    num_frames: int,
    num_objects: tuple[int, int],
    attempt: int,
) -> Drawn:
    style, n = STYLES[style_name], num_objects[1]
    drawn = {
        factor.name: attribute_of(factor, factors, classes, values, rng, n)
        for factor in LIBRARIES[style_name]
    }
    radius, direction = drawn[style.size].values[..., 0], drawn["motion"].values
    count = num_objects[0] + rng.fold("count").integers(n - num_objects[0] + 1, 1)
    progress = torch.arange(num_frames) / max(num_frames - 1, 1) - 0.5  # 0 in the middle
    farthest = TRAVEL[1] * float(progress[-1] - progress[0])  # nowhere, in a single frame
    wanted = torch.arange(n) < (count.clamp_max(1) if attempt == ATTEMPTS else count)
    start, present = find_places(style, radius, wanted, rng, attempt=attempt, farthest=farthest)
    step = direction * between(rng.fold("travel").uniform(n, 1), *TRAVEL)
    corner = torch.full((len(rng), 2), style.edge)
    azimuth_deg = torch.zeros(len(rng), 1)
    if "orientation" in drawn:  # what goes right in the picture does so wherever the camera stands
        azimuth_deg = drawn["orientation"].values[:, 0]
        step = _turned(step, azimuth_deg)
    motion = simulate(
        start,
        step / max(num_frames - 1, 1),
        radius=radius,
        mass=radius**3,
        present=present,
        num_frames=num_frames,
        bounds=(-corner, corner),
    )
    rows = len(rng) * num_frames
    scene = Scene(
        **_solids(style, drawn, motion, present, rng, progress),
        **draw_lamps(style, rng, num_frames),
        **draw_camera(style, rng, progress, azimuth_deg),
        ambient=torch.full((rows,), style.ambient),
        floor=_surface("floor_hue", drawn, style.floor, num_frames),
        wall=_surface("wall_hue", drawn, style.wall, num_frames),
        room=torch.full((rows,), style.room),
        haze=torch.full((rows,), style.haze),
        sky=torch.full((3, rows), style.sky),
    )
    return Drawn(scene, motion, present)


def _turned(step: Float[Tensor, "b n 2"], azimuth_deg: Float[Tensor, "b 1"]) -> Tensor:
    cos, sin = cos_sin(torch.deg2rad(azimuth_deg))  # b 1 each
    x, y = step.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _solids(
    style: Style,
    drawn: Mapping[str, Attribute],
    motion: Motion,
    present: Bool[Tensor, "b n"],
    rng: Rng,
    progress: Float[Tensor, " t"],
) -> dict[str, Tensor]:
    """Standing where `motion` puts them; what moves also turns, at a steady pace."""
    n, t = present.shape[1], len(progress)
    shape, radius = drawn["shape"].ids, drawn[style.size].values[..., 0]
    spin = MAX_SPIN_RAD * (rng.fold("spin").uniform(n) * 2 - 1)
    spin = spin * (drawn["motion"].values != 0).any(-1)
    first = 2 * math.pi * rng.fold("angle").uniform(n)
    angle = first[:, None] + spin[:, None] * progress[:, None]  # b t n
    height = radius * by_shape(HALF_HEIGHTS, shape)
    height = torch.where(present, height, FAR_BELOW)[:, None].expand(-1, t, -1)
    centre = torch.cat([motion.positions, height[..., None]], dim=-1)
    metal = drawn["material"].ids == METAL if "material" in drawn else torch.zeros_like(present)
    return {
        "shape": repeat(shape, "b n -> n (b t)", t=t),
        "centre": rearrange(centre, "b t n xyz -> xyz n (b t)"),
        "turn": rearrange(cos_sin(angle), "cs b t n -> cs n (b t)"),
        "radius": repeat(radius * present, "b n -> n (b t)", t=t),
        "albedo": repeat(drawn[style.colour].values, "b n c -> c n (b t)", t=t),
        "metal": repeat(metal.float(), "b n -> n (b t)", t=t),
    }


R = TypeVar("R", Scene, Motion)


def _replaced(record: R, axis: int, rows: Int64[Tensor, " r"], others: R) -> R:
    """With these rows of every tensor taken from `others`."""
    names = [field.name for field in fields(record)]
    return replace(
        record,
        **{k: getattr(record, k).index_copy(axis, rows, getattr(others, k)) for k in names},
    )


def _surface(
    name: str, drawn: Mapping[str, Attribute], grey: tuple[float, ...], num_frames: int
) -> Float[Tensor, "3 m"]:
    """The colour of floor or wall: that of the first row of its factor, else the style's own."""
    if name in drawn:
        return repeat(drawn[name].values[:, 0], "b c -> c (b t)", t=num_frames)
    (anything, *_) = drawn.values()
    return torch.tensor(grey)[:, None].expand(3, len(anything.ids) * num_frames)
