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
from jaxtyping import Float
from torch import Tensor, nn

from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator, GeneratorConfig
from vidcomp.objectives.base import Noised
from vidcomp.objectives.maskgit import MaskGIT
from vidcomp.probes.base_locality import Belief, Reach, Scenes
from vidcomp.types import Latents, State

_ROUNDING = 1e-4  # of places, in cells


def belief_of(
    generator: Generator, clean: Latents, seen: State, swapped: State, condition: Condition
) -> Belief:
    """Of scenes `seen`, which are `clean` at one level; `swapped` are the same noise and the same
    hidden positions, each with the clean latents of the scene before."""
    objective, locations = generator.objective, condition.locations
    assert locations is not None
    tokens = objective.embedding if isinstance(objective, MaskGIT) else None

    def of(x: Tensor, points: Tensor, given: Tensor) -> Float[Tensor, "b T H W o"]:
        told = replace(condition, locations=replace(locations, points=points, given=given))
        if tokens is None:
            return generator.predict(replace(seen, latents=Latents(x)), told)
        with instead_of(tokens, x[..., None, :]):  # codes at a position add up
            return generator.predict(seen, told)

    hides = not isinstance(objective, Noised)
    everywhere = torch.ones_like(seen.known)
    if tokens is not None:
        x, other = objective.embed(seen), objective.embed(swapped)
    else:
        x = seen.latents.values
        # Another scene with the noise that it has of its own, which is as likely.
        other = swapped.latents.values if hides else x.roll(1, 0)
    alpha, sigma = 1.0, 0.0
    if isinstance(objective, Noised):
        point = objective.path.at(seen.level[:1])
        alpha, sigma = float(point.alpha), float(point.sigma)
    scenes = Scenes(
        x=x,
        other=other,
        shown=seen.known if hides else everywhere,
        asked=~seen.known if hides else everywhere,
        points=locations.points,
        given=locations.given,
        clean=clean.values,
        alpha=alpha,
        sigma=sigma,
    )
    return Belief(scenes, of, objective.codebook_sizes if isinstance(objective, MaskGIT) else ())


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
