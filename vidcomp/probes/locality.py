"""How local a generator is: what its prediction at a place depends on, and whether it composes.

For the second paper (arXiv:2509.16447). Numbers are this project's own [OWN], defined in
`base_locality` (maps) and `base_composition` (objects). For every level, from nothing shown to all:

``pixels/...``: extents of the maps of gradients, ``perturbed/...`` of finite differences.
``leakage``: the share of what objects do that lies outside their windows, where what one does is
how far the prediction changes when it is no longer told of; ``insert_leakage``: the same of one
more object, told of where the scene shows none; ``leakage_gradient``: the same of gradients.
``diagonal``, ``additivity``, ``swap``: is each object treated on its own?
``enforced``: the share of scenes in which everything from outside the network's own window counts
for exactly nothing; only of networks in which that is so by construction.

Sources are the ``network``; and two that say what is no merit of it: an ``untrained`` one, shown
the same, and ``wiener``, the best linear denoiser of the clips that were trained on. Chance is a
map that is the same everywhere. n counts scenes: all numbers are means over a scene's probes first.

The network is told the places of all objects and asked without guidance. `scenes` are

- ``real``: clips that nothing was trained on, noised or hidden as in training;
- ``samples``: the run's own samples, however they were drawn, noised or hidden again in that way;
- ``path``: what the run's own sampler goes through, without guidance, when it is asked for the
  objects of the real clips: at each level its last state that is not beyond (it stops at few). So
  its own mistakes are there, and hidden is what it leaves for later. For ``wiener``, where the path
  ends is noised or hidden again.
"""

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes import base_network
from vidcomp.probes.base import ClipSet, Findings, Probe, Subject, mean_score, proportion
from vidcomp.probes.base_composition import (
    additivity,
    diagonal_share,
    gradient_leakage,
    insertions,
    leakage,
    newcomers,
    nothing_beyond,
    region_matrix,
    removals,
    swap,
)
from vidcomp.probes.base_locality import Belief, Opened, Reach, choose_probes
from vidcomp.probes.base_maps import aligned_maps, extents, gradient_maps, perturbed_maps
from vidcomp.probes.base_nulls import Wiener
from vidcomp.seeding import Rng
from vidcomp.world.factors import Factors


def _at_least_a_token(window: int) -> int:
    if window < 1 or window % 2 == 0:
        raise ValueError(
            f"a window of {window} is smaller than a token or has no middle; legal: 1, 3, 5, ... "
            "cells of the latent grid"
        )
    return window


def _from_one(objects: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= objects[0] <= objects[1]:
        raise ValueError(f"objects={list(objects)} is no range of counts; example: [2, 3]")
    return objects


_ENOUGH_CLIPS = 1000  # for the Wiener denoiser: with fewer, chance correlations reach everywhere

Level = Annotated[float, Field(ge=0, lt=1)]


class Config(base_network.Config):
    """`clips`: how many scenes, of `objects` from so many to so many each. `also_at`: levels beside
    `level`. `scenes`: see the module's text. `probes`: positions of each scene that are looked at;
    `perturbed`: that are replaced, one by one. `draws`: passes back for each probe. `window`: what
    counts as near, in cells.
    """

    clips: PositiveInt = 16
    also_at: tuple[Level, ...] = (0.1, 0.3, 0.7, 0.9)
    objects: Annotated[tuple[int, int], AfterValidator(_from_one)] = (2, 3)
    scenes: Literal["real", "samples", "path"] = "real"
    probes: PositiveInt = 64
    perturbed: PositiveInt = 16
    draws: PositiveInt = 2
    window: Annotated[int, AfterValidator(_at_least_a_token)] = 3

    def build(self, factors: Factors) -> "Locality":
        return Locality(self)


class Locality(Probe):
    """See the module's text."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, subject: Subject) -> Findings:
        model, on_path = _opened(subject.model), self.config.scenes == "path"
        of_whom = "real" if on_path else self.config.scenes
        if of_whom not in subject.sets:
            raise UserError(f"locality looks at {of_whom} clips; there are none")
        if subject.latents is None:
            raise UserError(
                "locality compares with a linear denoiser of the clips that were trained on, and "
                "none were given; score the run by tools/probe.py, which takes them from its data"
            )
        clips = self._scenes(subject.sets[of_whom])
        latents = subject.latents()
        wiener, num = Wiener.of(latents), len(latents)
        few = f"a covariance of {num} clips" if num < _ENOUGH_CLIPS else ""
        untrained, paths = model.untrained(), model.global_paths()
        if paths:
            print(f"locality is not enforced, so it is only measured: {'; '.join(paths)}")
        findings = Findings()
        levels = sorted({self.config.level, *self.config.also_at})
        views = (model.path if on_path else model.seen)(clips, levels)
        for level, seen in zip(levels, views, strict=True):
            belief = model.belief(clips, seen)
            sources = {
                "network": belief,
                "untrained": untrained.belief(clips, seen),
                "wiener": wiener.belief(belief.scenes),
            }
            reach = None if paths else model.reach(float(seen.state.level[0]))
            for source, asked in sources.items():
                found = measure(asked, self.config, reach if source == "network" else None)
                prefix = f"{source}/{level:g}"
                flag = few if source == "wiener" else ""
                for key, score in found.scores.items():
                    findings.scores[f"{prefix}/{key}"] = score._replace(flag=flag)
                findings.tables.update({f"{prefix}/{k}": t for k, t in found.tables.items()})
        return findings

    def _scenes(self, clips: ClipSet) -> ClipSet:
        """Evenly over those with as many objects as wanted."""
        if clips.locations is None:
            raise UserError(
                "locality looks at objects in their places, and these clips come without; use a "
                "dataset that has them (counting)"
            )
        counts, (low, high) = clips.locations.present.sum(1), self.config.objects
        rows = ((counts >= low) & (counts <= high)).nonzero()[:, 0]
        if not len(rows):
            legal = ", ".join(str(n) for n in counts.unique().tolist())
            raise UserError(
                f"no scene has {low} to {high} objects, but some have {legal}; locality takes them "
                "by objects=[from, to], from 1 on"
            )
        even = torch.linspace(0, len(rows) - 1, min(self.config.clips, len(rows)))
        return clips[rows[even.round().long()]]


def measure(belief: Belief, config: Config, reach: Reach | None = None) -> Findings:
    """All numbers of one denoiser at one level, and its maps by displacement: ``maps/pixels`` from
    the probe, ``maps/objects`` from the object's cell; ``regions`` is B of each scene."""
    scenes, window = belief.scenes, config.window
    if window >= 2 * max(scenes.grid.h, scenes.grid.w) - 1:
        raise UserError(
            f"window={window} around a position holds all of {scenes.grid.h} x {scenes.grid.w} "
            "cells; take a smaller one"
        )
    rng = Rng.make(0, "locality", torch.arange(len(scenes.x), device=scenes.x.device))
    probes = choose_probes(scenes, scenes.asked, num=config.probes, window=window, rng=rng)
    sources = choose_probes(scenes, scenes.shown, num=config.perturbed, window=window, rng=rng)
    maps = gradient_maps(belief, probes, draws=config.draws, rng=rng)
    shown, asked = (where.flatten(1)[:, None] for where in (scenes.shown, scenes.asked))
    of_pixels, of_sources = maps.positions * shown, perturbed_maps(belief, sources) * asked
    changes = removals(belief)
    regions = region_matrix(changes, scenes, window)

    findings = Findings(tables={"regions": regions.cpu()})
    for name, found, at, where in (
        ("pixels", of_pixels, probes, shown),
        ("perturbed", of_sources, sources, asked),
    ):
        even = extents(where.double().expand_as(found), at, scenes.grid, window=window)
        for key, values in extents(found, at, scenes.grid, window=window).items():
            _add(findings, f"{name}/{key}", values.nanmean(1), even[key].nanmean(1))
    new = newcomers(scenes, window, rng)
    of_new = insertions(belief, new)
    for key, made, by in (("leakage", changes, scenes), ("insert_leakage", of_new, new)):
        everywhere = (asked & by.given[..., None]).double().expand_as(made)
        _add(findings, key, leakage(made, by, window), leakage(everywhere, by, window))
    _add(findings, "leakage_gradient", gradient_leakage(maps, probes, scenes, window))
    _add(findings, "diagonal", diagonal_share(regions, scenes), 1 / scenes.given.sum(1))
    for key, values in additivity(belief).items():
        _add(findings, key, values)
    _add(findings, "swap", swap(belief, window))
    if reach is not None:
        exact = nothing_beyond(reach, maps, probes, changes, scenes)
        findings.scores["enforced"] = proportion(exact.cpu())
    findings.tables.update(aligned_maps(of_pixels, probes, changes, scenes))
    return findings


def _opened(model: object) -> Opened:
    if not isinstance(model, Opened):
        raise UserError("locality looks inside a network, and none was given that can be opened")
    return model


def _add(findings: Findings, key: str, values: Tensor, chance: Tensor | None = None) -> None:
    """The mean over scenes that say anything, if there are such."""
    known = values.isfinite()
    if known.any():
        score = mean_score(values[known].cpu())
        if chance is not None:
            score = score._replace(chance=float(chance[known].mean()))
        findings.scores[key] = score
