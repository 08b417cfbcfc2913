"""The world of one sprite: how it looks, how it moves, and whether it is there all the time.

Unusual: travel and start depend on the radius but never on the shape, although some shapes would
have more room: otherwise speed and place would tell the shape.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.world.concepts import SINGLE
from vidcomp.world.factors import Factors
from vidcomp.world.paths import Way, lay
from vidcomp.world.scenes import (
    MAX_ANGLE_RAD,
    NUISANCE_SHAPES,
    RADIUS,
    TRAVEL,
    Asked,
    ask,
    check_frames,
    check_varying,
    progress_of,
)
from vidcomp.world.shapes import EXTENT, ROUND
from vidcomp.world.sprites import Scene

VARYING = ("texture", "background", "rotation", "lighting")
"""What may vary though it is not controlled."""

_MOMENT = (0.35, 0.65)  # progress when the sprite appears, vanishes or bounces
_FEWEST_FRAMES = {"turn": 3, "bounce": 3, "rotation": 8}  # a star looks the same a fifth round
_MOVES = ("speed", "turn", "bounce")


def draw_single(
    factors: Factors,
    classes: Int64[Tensor, "b f"],
    values: Float[Tensor, "b f v"],
    indices: Int64[Tensor, " b"],
    *,
    seed: int,
    num_frames: int,
    height: int,
    width: int,
    varying: Sequence[str],
) -> Scene:
    """The scenes of the clips `indices`, which show `classes` with these `values`."""
    asked = ask(SINGLE, factors, classes, values, indices, seed=seed, varying=varying)
    progress = progress_of(num_frames)
    radius = asked.value("size", lambda: asked.between("radius", *RADIUS, 1))
    path = lay(
        _way(asked, radius),
        asked.rng.fold("start").uniform(2),
        reach=EXTENT * radius[:, 0],
        frame=torch.tensor([width, height]) / min(height, width),
        num_frames=num_frames,
    )
    angle = asked.between("angle", -MAX_ANGLE_RAD, MAX_ANGLE_RAD, 1)
    spin = asked.value("rotation", lambda: torch.zeros_like(angle))
    texture = asked.kind("texture")
    return Scene(
        present=torch.ones(len(indices), 1, dtype=torch.bool),
        centres=path.centres[:, :, None],
        radius=radius,
        angle_rad=(angle + spin * progress)[..., None],
        rgb=asked.rgb()[:, None],
        shape=asked.shapes()[:, None],
        texture=None if texture is None else texture[:, None],
        opacity=_opacity(asked, progress),
        background=asked.background(),
        light=asked.light(),
        velocities=path.velocities[:, :, None],
        contacts=torch.stack([path.touches & False, path.touches], dim=-1)[:, :, None],
    )


def check_single(factors: Factors, varying: Sequence[str], num_frames: int) -> None:
    """What is asked can be seen."""
    check_frames(factors, num_frames)
    check_varying(factors, varying, VARYING)
    chosen = {factor.name: factor.class_names for factor in factors.items}
    for name, fewest in _FEWEST_FRAMES.items():
        if name in chosen and num_frames < fewest:
            raise UserError(
                f"{name} cannot be seen in {num_frames} frames; legal: {fewest} or more"
            )
    resting = [name for name in _MOVES if name in chosen and "still" in chosen.get("motion", ())]
    if resting:
        raise UserError(f"{resting[0]} cannot be seen of what stands still; drop motion: still")
    if "turn" in chosen and "bounce" in chosen:
        raise UserError("turn and bounce cannot be combined; drop one of them")
    round_ones = [name for name in chosen.get("shape", NUISANCE_SHAPES) if name in ROUND]
    if "rotation" in chosen and round_ones and "plain" in chosen.get("texture", ("plain",)):
        raise UserError(
            f"rotation cannot be seen of a plain {round_ones[0]}; name other shapes in "
            "factors.shape, or textures but plain in factors.texture"
        )


def _way(asked: Asked, radius: Float[Tensor, "b 1"]) -> Way:
    longest = (1 - 2 * EXTENT * radius).clamp_max(TRAVEL[1])
    travel = asked.value("speed", lambda: asked.between("travel", TRAVEL[0], longest, 1))
    bounces = asked.kind("bounce")
    return Way(
        step=travel * asked.value("motion", asked.heading),
        turn_rad=asked.value("turn", lambda: torch.zeros_like(travel))[:, 0],
        bounces=torch.zeros(len(radius), dtype=torch.bool) if bounces is None else bounces > 0,
        bounce_at=asked.between("bounce", *_MOMENT),
    )


def _opacity(asked: Asked, progress: Float[Tensor, " t"]) -> Float[Tensor, "b t 1"] | None:
    """Whether the sprite is there yet, or still."""
    kind = asked.kind("presence")
    if kind is None:
        return None
    after = progress >= asked.between("presence", *_MOMENT, 1)
    stay, appear = kind[:, None] == 0, kind[:, None] == 1
    return (stay | (after == appear)).float()[..., None]
