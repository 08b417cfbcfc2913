"""The world of two sprites that meet: A, whose looks can be controlled, and B, which is grey.

Both set off, meet halfway and go on. What can be asked is what happens: whether they collide or
pass each other, which sets off first, which is in front, whether A appears or vanishes. All can be
combined, but for occlusion and collisions: what collides never overlaps.

A clip is planned backwards from the meeting. Up to it, whether they collide changes nothing; the
first frame does not tell which sets off first, since the ways to the meeting are drawn before.

Unusual: sprites collide as the discs of their radius, whatever their shapes.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.world.concepts import PAIR
from vidcomp.world.factors import Factors
from vidcomp.world.physics import Corners, Motion, simulate
from vidcomp.world.scenes import (
    MAX_ANGLE_RAD,
    Asked,
    ask,
    check_frames,
    check_varying,
    nuisance_shapes,
    progress_of,
)
from vidcomp.world.shapes import EXTENT
from vidcomp.world.sprites import Scene

VARYING = ("texture", "background", "lighting")
"""What may vary though it is not controlled."""

FEWEST_FRAMES = 5
"""To see who sets off first, and what follows from the meeting."""

_FEWEST_FOR_OCCLUSION_AND_ORDER = 8
"""With fewer, a short meeting may fall between two frames; at 7 one of 2000 does."""

RADIUS = (0.10, 0.12)
WAY = (0.19, 0.23)  # of each sprite, up to the meeting
_MAX_OFF_AXIS_RAD = 0.6  # between the line from A to B and A's direction, when they meet
_GREY = (0.65, 0.85)

# Progress, from 0 to 1:
_MEETING = (0.48, 0.56)
_FIRST_START = (0.0, 0.06)
_SECOND_START = (0.22, 0.30)
_APPEARING = (0.08, 0.2)
_VANISHING = (0.78, 0.92)


def draw_pair(
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
    """The scenes of the clips `indices`, which show `classes`, at these `values`. Object 0 is A."""
    asked = ask(PAIR, factors, classes, values, indices, seed=seed, varying=varying)
    b = len(indices)
    frame = torch.tensor([width, height]) / min(height, width)
    radius = asked.between("radius", *RADIUS, 2)
    motion = _meet(asked, radius, frame=frame, num_frames=num_frames)
    grey = asked.between("grey", *_GREY, 1).expand(-1, 3)
    texture = asked.kind("texture")
    return Scene(
        present=torch.ones(b, 2, dtype=torch.bool),
        centres=motion.positions,
        radius=radius,
        angle_rad=asked.between("angle", -MAX_ANGLE_RAD, MAX_ANGLE_RAD, 1, 2).repeat(
            1, num_frames, 1
        ),
        rgb=torch.stack([asked.rgb(), grey], dim=1),
        shape=torch.stack([asked.shapes(), nuisance_shapes(asked.rng.fold("shape of b"))], dim=1),
        texture=None if texture is None else torch.stack([texture, texture * 0], dim=1),
        opacity=_opacity(asked, progress_of(num_frames)),
        layers=_layers(asked),
        background=asked.background(),
        light=asked.light(),
        velocities=motion.velocities,
        contacts=motion.contacts,
    )


def check_pair(factors: Factors, varying: Sequence[str], num_frames: int) -> None:
    """What is asked can be seen."""
    check_frames(factors, num_frames)
    check_varying(factors, varying, VARYING)
    chosen = {factor.name: factor.class_names for factor in factors.items}
    if "occlusion" in chosen and "collide" in chosen.get("event", ()):
        raise UserError(
            "occlusion cannot be seen of sprites that collide; drop occlusion, or event: collide"
        )
    if {"occlusion", "order"} <= set(chosen) and num_frames < _FEWEST_FOR_OCCLUSION_AND_ORDER:
        raise UserError(
            f"occlusion and order cannot both be seen in {num_frames} frames; set num_frames to "
            f"{_FEWEST_FOR_OCCLUSION_AND_ORDER} or more, or drop one of them"
        )


def _meet(
    asked: Asked, radius: Float[Tensor, "b 2"], *, frame: Float[Tensor, " 2"], num_frames: int
) -> Motion:
    """Where both are, planned from the meeting."""
    heading = asked.value("motion", asked.heading)
    axis = _turned(heading, asked.between("axis", -_MAX_OFF_AXIS_RAD, _MAX_OFF_AXIS_RAD, 1))
    apart = radius.sum(1, keepdim=True) / 2 * axis
    at_meeting = torch.stack([-apart, apart], dim=1)  # b n 2, from the point between them
    ahead = torch.stack([heading, -heading], dim=1)
    way = asked.between("way", *WAY, 2)[..., None] * ahead
    at_start = at_meeting - way

    edge = (EXTENT - 1) * radius.amax(1, keepdim=True)  # walls leave room for corners
    both = torch.cat([at_start, at_meeting], dim=1)
    reach = (radius + edge).repeat(1, 2)[..., None]
    low, high = (reach - both).amax(1), (frame - reach - both).amin(1)
    point = (low + asked.rng.fold("point").uniform(2) * (high - low))[:, None]

    meeting = asked.between("meeting", *_MEETING, 1, 1)
    starts = _starts(asked)[..., None]  # b n 1
    velocity = way / (meeting - starts)  # over the clip
    event = asked.kind("event")
    motion = _run(
        point + at_meeting - velocity * meeting,  # where it would be, had it always moved
        velocity / (num_frames - 1),
        radius,
        collide=torch.zeros(len(radius), dtype=torch.bool) if event is None else event == 1,
        bounds=(edge.expand(-1, 2), frame - edge),
        num_frames=num_frames,
    )
    waits = progress_of(num_frames)[:, None, None] < starts[:, None]  # b t n 1
    return Motion(
        torch.where(waits, (point + at_start)[:, None], motion.positions),
        torch.where(waits, 0, motion.velocities),
        motion.contacts,
    )


def _run(
    positions: Float[Tensor, "b n 2"],
    velocities: Float[Tensor, "b n 2"],
    radius: Float[Tensor, "b n"],
    *,
    collide: Bool[Tensor, " b"],
    bounds: Corners,
    num_frames: int,
) -> Motion:
    """Discs in the frame, which collide, or else pass each other: each is simulated alone."""
    b, n = radius.shape
    alone = _simulate(
        positions.reshape(b * n, 1, 2),
        velocities.reshape(b * n, 1, 2),
        radius.reshape(b * n, 1),
        bounds=(bounds[0].repeat_interleave(n, 0), bounds[1].repeat_interleave(n, 0)),
        num_frames=num_frames,
    )
    walls = rearrange(alone.contacts[:, :, 0, 1], "(b n) t -> b t n 1", n=n)
    apart = Motion(
        rearrange(alone.positions, "(b n) t 1 xy -> b t n xy", n=n),
        rearrange(alone.velocities, "(b n) t 1 xy -> b t n xy", n=n),
        torch.cat([walls.new_zeros(b, num_frames, n, n), walls], dim=-1),
    )
    together = _simulate(positions, velocities, radius, bounds=bounds, num_frames=num_frames)
    choose = collide[:, None, None, None]
    return Motion(
        torch.where(choose, together.positions, apart.positions),
        torch.where(choose, together.velocities, apart.velocities),
        torch.where(choose, together.contacts, apart.contacts),
    )


def _simulate(
    positions: Float[Tensor, "b n 2"],
    velocities: Float[Tensor, "b n 2"],
    radius: Float[Tensor, "b n"],
    *,
    bounds: Corners,
    num_frames: int,
) -> Motion:
    return simulate(
        positions,
        velocities,
        radius=radius,
        mass=radius.square(),
        present=torch.ones_like(radius, dtype=torch.bool),
        num_frames=num_frames,
        bounds=bounds,
    )


def _starts(asked: Asked) -> Float[Tensor, "b n"]:
    """Progress when each sets off: both at once, or one later."""
    kind = asked.kind("order")
    if kind is None:
        return torch.zeros(len(asked.rng), 2)
    first = asked.between("first start", *_FIRST_START)
    second = asked.between("second start", *_SECOND_START)
    a_first = kind == 0
    a, b = torch.where(a_first, first, second), torch.where(a_first, second, first)
    return torch.stack([a, b], dim=1)


def _opacity(asked: Asked, progress: Float[Tensor, " t"]) -> Float[Tensor, "b t n"] | None:
    """A appears before the meeting or vanishes after it; B is always there."""
    kind = asked.kind("presence")
    if kind is None:
        return None
    appearing = asked.between("appearing", *_APPEARING, 1)
    vanishing = asked.between("vanishing", *_VANISHING, 1)
    kind = kind[:, None]
    gone = ((kind == 1) & (progress < appearing)) | ((kind == 2) & (progress >= vanishing))
    return torch.stack([~gone, torch.ones_like(gone)], dim=-1).float()


def _layers(asked: Asked) -> Int64[Tensor, "b n"]:
    """A is the one in front or behind, at random where that is not asked."""
    behind = asked.kind("occlusion")
    if behind is None:
        behind = asked.rng.fold("occlusion").integers(2)
    return torch.stack([1 - behind, behind], dim=1)


def _turned(vector: Float[Tensor, "b 2"], angle_rad: Float[Tensor, "b 1"]) -> Float[Tensor, "b 2"]:
    cos, sin = angle_rad.cos(), angle_rad.sin()
    x, y = vector[:, :1], vector[:, 1:]
    return torch.cat([cos * x - sin * y, sin * x + cos * y], dim=1)
