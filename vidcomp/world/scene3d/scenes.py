"""From (seed, index, classes) to what happens: solids that slide, turn and collide, light, camera.

Solid 0 is the one that the factors control. The others are distractors: where a factor is
controlled, they take the classes that the config does not name (if there are any), so it is clear
which solid is meant. Whatever is not controlled is drawn freely, and independently of the classes:
a place, for instance, never tells the size or the motion.

Every draw is a pure function of (seed, index), so clip i is the same in any batch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.seeding import Rng
from vidcomp.world.factors import Factor, Factors
from vidcomp.world.physics import Motion, simulate
from vidcomp.world.scene3d.concepts import LIBRARIES, StyleName
from vidcomp.world.scene3d.scene import Scene
from vidcomp.world.scene3d.solids import HALF_HEIGHTS, by_shape
from vidcomp.world.scene3d.studio import between, cos_sin, draw_camera, draw_lamps
from vidcomp.world.scene3d.styles import STYLES, Style

TRAVEL = (0.9, 1.5)
"""How far a moving solid would go over the clip without a collision, in world units."""

GAP = 0.25
"""Least distance between two solids at the start, in world units; CLEVR's."""

MAX_SPIN_RAD = 1.5
"""The most that a moving solid turns over the clip."""

TRIES = 64
"""Places that are tried for each solid; one that finds none is left out."""

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


@dataclass(frozen=True)
class _Attribute:
    """A factor of every solid: its class in the library, and its numbers."""

    ids: Int64[Tensor, "b n"]
    values: Float[Tensor, "b n v"]


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
    """Clips that show `classes`, with these `values`; fewest and most solids in `num_objects`."""
    style, n = STYLES[style_name], num_objects[1]
    drawn = {
        factor.name: _attribute(factor, factors, classes, values, rng, n)
        for factor in LIBRARIES[style_name]
    }
    radius, direction = drawn[style.size].values[..., 0], drawn["motion"].values
    count = num_objects[0] + rng.fold("count").integers(n - num_objects[0] + 1, 1)
    progress = torch.arange(num_frames) / max(num_frames - 1, 1) - 0.5  # 0 in the middle
    farthest = TRAVEL[1] * float(progress[-1] - progress[0])  # nowhere, in a single frame
    start, present = _places(style, radius, torch.arange(n) < count, rng, farthest=farthest)
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


def _attribute(
    library: Factor,
    factors: Factors,
    classes: Int64[Tensor, "b f"],
    values: Float[Tensor, "b f v"],
    rng: Rng,
    n: int,
) -> _Attribute:
    """The class and value of every solid; of solid 0 those asked for, if they are controlled."""
    free = list(range(len(library.classes)))
    rng = rng.fold(library.name)
    if library.name not in factors.names:
        ids = rng.integers(len(free), n)
        return _Attribute(ids, _values_in(library, ids, rng))
    column = factors.names.index(library.name)
    named = [library.index(name) for name in factors.items[column].class_names]
    others = torch.tensor([i for i in free if i not in named] or free)
    ids = others[rng.integers(len(others), n)]
    ids[:, 0] = torch.tensor(named)[classes[:, column]]
    numbers = _values_in(library, ids, rng)
    numbers[:, 0] = values[:, column, : library.value_size]
    return _Attribute(ids, numbers)


def _values_in(library: Factor, ids: Int64[Tensor, "b n"], rng: Rng) -> Float[Tensor, "b n v"]:
    """Uniform in the boxes of the classes."""
    middle = torch.tensor([c.prototype for c in library.classes])[ids]
    half = torch.tensor([c.spread for c in library.classes])[ids]
    return middle + half * (rng.fold("values").uniform(*middle.shape[1:]) * 2 - 1)


def _places(
    style: Style,
    radius: Float[Tensor, "b n"],
    wanted: Bool[Tensor, "b n"],
    rng: Rng,
    *,
    farthest: float,
) -> tuple[Float[Tensor, "b n 2"], Bool[Tensor, "b n"]]:
    """Where solids start, apart from each other, and which of those wanted have found a place.

    Around solid 0 there is room for the largest, and it starts where it stays in sight if it goes
    `farthest` in any direction: so its place tells nothing.
    """
    n = radius.shape[1]
    reserved = torch.cat([torch.full_like(radius[:, :1], style.largest), radius[:, 1:]], dim=1)
    half = torch.full((n, 1, 1), style.arena)
    half[0] = max(style.arena - farthest, 0)
    tries = half * (rng.fold("place").uniform(n, TRIES, 2) * 2 - 1)
    places, present = tries[:, :, 0].clone(), wanted.clone()
    for i in range(1, n):
        apart = tries[:, i, :, None] - places[:, None, :i]  # b tries i 2
        far = apart[..., 0] ** 2 + apart[..., 1] ** 2
        least = (reserved[:, :i] + reserved[:, i : i + 1] + GAP) ** 2
        free = ((far > least[:, None]) | ~present[:, None, :i]).all(-1)  # b tries
        present[:, i] &= free.any(1)
        places[:, i] = tries[torch.arange(len(rng)), i, free.float().argmax(1)]
    return places, present


def _turned(step: Float[Tensor, "b n 2"], azimuth_deg: Float[Tensor, "b 1"]) -> Tensor:
    cos, sin = cos_sin(torch.deg2rad(azimuth_deg))  # b 1 each
    x, y = step.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def _solids(
    style: Style,
    drawn: Mapping[str, _Attribute],
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


def _surface(
    name: str, drawn: Mapping[str, _Attribute], grey: tuple[float, ...], num_frames: int
) -> Float[Tensor, "3 m"]:
    """The colour of floor or wall: that of the first row of its factor, else the style's own."""
    if name in drawn:
        return repeat(drawn[name].values[:, 0], "b c -> c (b t)", t=num_frames)
    (anything, *_) = drawn.values()
    return torch.tensor(grey)[:, None].expand(3, len(anything.ids) * num_frames)
