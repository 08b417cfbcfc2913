"""A generator as a function of what it is shown and told, for the measurement of locality
(`vidcomp.probes.base_locality`).

Of noised latents, and of masked ones, what it is shown are the latents; of codes, the embedded
tokens, since there is no gradient in a code. What it is told are points and which objects are
given; everything else that it is told stays as it is.
"""

import contextlib
import math
from collections import abc
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator, GeneratorConfig
from vidcomp.objectives.base import Noised
from vidcomp.objectives.maskgit import MaskGIT
from vidcomp.probes.base_locality import Belief, Reach, Scenes, Seen
from vidcomp.types import Latents
from vidcomp.world.locations import Locations

_ROUNDING = 1e-4  # of places, in cells


def belief_of(generator: Generator, seen: Seen, condition: Condition) -> Belief:
    """Of what it is shown, told of the objects of `condition`."""
    objective, locations, state = generator.objective, condition.locations, seen.state
    assert locations is not None
    tokens = objective.embedding if isinstance(objective, MaskGIT) else None

    def of(x: Tensor, points: Tensor, given: Tensor) -> Float[Tensor, "b T H W o"]:
        told = replace(condition, locations=placed(locations, points, given))
        if tokens is None:
            return generator.predict(replace(state, latents=Latents(x)), told)
        with instead_of(tokens, x[..., None, :]):  # codes at a position add up
            return generator.predict(state, told)

    hides = not isinstance(objective, Noised)
    everywhere = torch.ones_like(state.known)
    x, other = (
        s.latents.values if tokens is None else objective.embed(s) for s in (state, seen.swapped)
    )
    alpha, sigma = 1.0, 0.0
    if isinstance(objective, Noised):
        point = objective.path.at(state.level[:1])
        alpha, sigma = float(point.alpha), float(point.sigma)
    scenes = Scenes(
        x=x,
        other=other,
        shown=state.known if hides else everywhere,
        asked=~state.known if hides else everywhere,
        points=locations.points,
        given=locations.given,
        clean=seen.clean.values,
        alpha=alpha,
        sigma=sigma,
    )
    return Belief(scenes, of, objective.codebook_sizes if isinstance(objective, MaskGIT) else ())


def placed(
    locations: Locations, points: Float[Tensor, "b t n 2"], given: Bool[Tensor, "b n"]
) -> Locations:
    """At other points. Objects beyond those that there are stand still, and look like the first one
    that is given."""
    more = locations.padded(points.shape[2])
    first = locations.given.long().argmax(1)[:, None, None]
    look = locations.attributes.take_along_dim(first, dim=1)  # b 1 a
    rows = torch.arange(points.shape[2], device=points.device)[:, None]
    looks = torch.where(rows < locations.present.shape[1], more.attributes, look)
    return replace(more, points=points, given=given, attributes=looks)


def reach_of(config: GeneratorConfig, level: float) -> Reach:
    """What windows let through at a level, of a generator without global paths."""
    backbone, locations = config.backbone, config.conditioning.locations
    cells, frames = (
        math.inf if window is None else window // 2
        for window in (backbone.window, backbone.window_frames)
    )
    if backbone.window_at_noise is not None:
        cells = math.ceil(cells + (backbone.window_at_noise // 2 - cells) * (1 - level))
    own = 0.5  # a point in a cell is no further from its middle
    if locations is not None and locations.reach is not None:
        own = max(own, locations.reach)
    return Reach(float(cells), float(frames), cells + own + _ROUNDING)


@contextlib.contextmanager
def instead_of(module: nn.Module, answer: Tensor) -> abc.Generator[None, None, None]:
    """Whatever `module` is asked, it answers this."""
    hook = module.register_forward_hook(lambda _module, _given, _out: answer)
    try:
        yield
    finally:
        hook.remove()
