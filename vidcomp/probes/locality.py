"""How local a generator is: what its prediction at a place depends on, and whether it composes.

For the second paper (arXiv:2509.16447). Numbers are this project's own [OWN], defined in
`base_locality` (maps) and `base_composition` (objects). For every level, from nothing shown to all:

``pixels/...``: extents of the maps of gradients, ``perturbed/...`` of finite differences.
``leakage``: the share of what objects do that lies outside their windows; ``leakage_gradient``: the
same of gradients. ``diagonal``, ``additivity``, ``swap``: is each object treated on its own?
``enforced``: the share of scenes in which everything from outside the network's own window counts
for exactly nothing; only of networks in which that is so by construction.

Sources are the ``network``; and two that say what is no merit of it: an ``untrained`` one, and
``wiener``, the best linear denoiser of the clips. Chance is a map that is the same everywhere. n
counts scenes: all numbers are means over a scene's probes first.

The network is told the places of all objects and asked without guidance. Scenes are real clips,
noised or hidden as in training, or (``scenes: samples``) its own, noised again: where sampling adds
noise that is how its own trajectory is distributed.
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
    leakage,
    nothing_beyond,
    region_matrix,
    removals,
    swap,
)
from vidcomp.probes.base_locality import Belief, Opened, Reach, choose_probes
from vidcomp.probes.base_maps import aligned_maps, extents, gradient_maps, perturbed_maps
from vidcomp.probes.base_nulls import MOST_CLIPS, Wiener
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
    `level`. `probes`: positions of each scene that are looked at; `perturbed`: that are replaced,
    one by one. `draws`: passes back for each probe. `window`: what counts as near, in cells.
    """

    clips: PositiveInt = 16
    also_at: tuple[Level, ...] = (0.1, 0.3, 0.7, 0.9)
    objects: Annotated[tuple[int, int], AfterValidator(_from_one)] = (2, 3)
    scenes: Literal["real", "samples"] = "real"
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
        model = _opened(subject.model)
        for source in ("real", self.config.scenes):
            if source not in subject.sets:
                raise UserError(f"locality looks at {source} clips; there are none")
        clips = self._scenes(subject.sets[self.config.scenes])
        training = _of_training(subject)
        wiener = Wiener.of(model.latents(training))
        num = len(training.video)
        few = f"a covariance of {num} clips" if num < _ENOUGH_CLIPS else ""
        untrained, paths = model.untrained(), model.global_paths()
        if paths:
            print(f"locality is not enforced, so it is only measured: {'; '.join(paths)}")
        findings = Findings()
        for level in sorted({self.config.level, *self.config.also_at}):
            belief = model.belief(clips, level)
            sources = {
                "network": belief,
                "untrained": untrained.belief(clips, level),
                "wiener": wiener.belief(belief.scenes),
            }
            for source, asked in sources.items():
                reach = model.reach(level) if source == "network" and not paths else None
                found = measure(asked, self.config, reach)
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
    everywhere = (asked & scenes.given[..., None]).double().expand_as(changes)
    evenly = leakage(everywhere, scenes, window)
    _add(findings, "leakage", leakage(changes, scenes, window), evenly)
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


def _of_training(subject: Subject) -> ClipSet:
    """Fresh clips of what was trained on, as many as the Wiener denoiser takes."""
    clips = subject.sets["real"]
    seen = subject.split.seen(clips.classes, clips.values).nonzero()[:, 0]
    return clips[seen[:MOST_CLIPS]]
