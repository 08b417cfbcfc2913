"""Every rung of the objective ladder on every kind of latents, and what a perfect network says.

A `Case` is an objective, its settings, and latents that it was built for. Objectives differ in what
"the truth" is as an output, so a case knows it: `right_out` has the least loss there is, and
`sure_out` leaves no doubt about the data.
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.objectives.base import OBJECTIVES, Noised, Objective
from vidcomp.objectives.givt import Givt
from vidcomp.objectives.mar import Mar
from vidcomp.objectives.maskgit import Categorical, MaskGIT, codes_of
from vidcomp.objectives.soft_maskgit import NUM_LOGISTICS, Factorised, PerLevel, Soft
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Corrupted, Grid, Latents, LatentSpec, State
from vidcomp.world.concepts import choose

WIDTH = 48
STRIDES = Grid(4, 8, 8)
SPECS = {
    "codes": LatentSpec(STRIDES, 3, codebook_sizes=(12,)),
    "grouped codes": LatentSpec(STRIDES, 4, codebook_sizes=(5, 9)),
    "fsq": LatentSpec(STRIDES, 2, codebook_sizes=(15,), levels=(5, 3)),
    "continuous": LatentSpec(STRIDES, 4),
}
GRIDS = (Grid(1, 3, 3), Grid(3, 2, 3))
FACTORS = choose({"shape": ["circle", "square"], "motion": ["left", "up", "down"]})
BATCH = 4

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "maskgit": [{"loss_on": "all", "label_smoothing": 0.0}, {"schedule": "arccos"}],
    "soft_maskgit": [{"heads": "per_level"}, {"heads": "ordinal"}, {"tau": 5.0, "loss_on": "all"}],
    "givt": [{"num_mixtures": 1, "min_std": 0.02}],
    "mar": [{"draws": 1, "head_depth": 1, "loss_on": "all"}],
    "flow": [{"predict": "data"}, {"predict": "noise", "times": "uniform", "shift": 3.0}],
    "diffusion": [
        {"predict": "v", "zero_terminal_snr": True, "min_snr_gamma": 5.0},
        {"predict": "x0", "betas": "cosine", "num_timesteps": 1000, "min_snr_gamma": 5.0},
        {"min_snr_gamma": 5.0},
    ],
}
"""Beside the defaults."""

SMALL = {"mar": {"head_width": 32, "head_steps": 5}}
"""Settings of every case, so that tests are quick."""


@dataclass(frozen=True)
class Case:
    """See the module's text."""

    name: str
    spec: LatentSpec
    grid: Grid
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def raw(self) -> dict[str, Any]:
        """The objective's part of a YAML."""
        return {"name": self.name, **SMALL.get(self.name, {}), **self.settings}

    @functools.cached_property
    def objective(self) -> Objective:
        return self.fresh()

    def fresh(self) -> Objective:
        with initial_weights(0):
            objective = OBJECTIVES.config(self.raw).build(self.spec, WIDTH)
        if self.spec.codebook_sizes is not None:
            objective.learn_codes(self.lookup)
        return objective

    def opened(self) -> Objective:
        """As after some training: nothing is zero any more."""
        objective = self.fresh()
        with torch.no_grad():
            for name, parameter in objective.named_parameters():
                draws = Rng.make(0, name, torch.zeros(1).long()).normal(*parameter.shape)[0]
                parameter.add_(0.2 * draws)
        return objective

    def perfect(self) -> Objective:
        """An objective whose own networks are exact, if it has some: MAR's head, told the data."""
        objective = self.fresh()
        if isinstance(objective, Mar):
            head = objective.diffusion

            def v(noised: Tensor, level: Tensor, condition: Tensor) -> Tensor:
                point, data = head.path.at(level), condition[..., : head.channels]
                return point.v(data, point.noise(noised, data))

            head.v = v
        return objective

    def lookup(self, codes: Tensor) -> Latents:
        """Each code's vector; those of several codebooks are added up."""
        tables = [
            Rng.make(0, f"codebook {i}", torch.arange(size)).normal(self.spec.channels)
            for i, size in enumerate(self.spec.codebook_sizes or ())
        ]
        vectors = [table[c] for table, c in zip(tables, codes.unbind(-1), strict=True)]
        return Latents(torch.stack(vectors).sum(0), codes)

    def clean(self, *, batch: int = BATCH, seed: int = 0) -> Latents:
        rng = self.rng("clean", batch, seed)
        if self.spec.codebook_sizes is None:
            return Latents(rng.normal(*self.grid, self.spec.channels))
        drawn = [rng.fold(k).integers(k, *self.grid) for k in self.spec.codebook_sizes]
        return self.lookup(torch.stack(drawn, dim=-1))

    def given(self, share: float, *, batch: int = BATCH) -> Tensor:
        return self.rng("given", batch).bernoulli(share, *self.grid)

    def corrupted(self, share_given: float = 0.0) -> Corrupted:
        clean, given = self.clean(), self.given(share_given)
        return self.objective.corrupt(clean, given, self.rng("corrupt"))

    def some_out(self, *, batch: int = BATCH, seed: int = 0) -> Tensor:
        """An output of an untrained network."""
        hidden = self.rng("hidden", batch, seed).normal(*self.grid, WIDTH)
        out = self.objective.head(hidden).detach()
        return out + self.rng("out", batch, seed).normal(*out.shape[1:])

    def rng(self, purpose: str, batch: int = BATCH, seed: int = 0) -> Rng:
        return Rng.make(seed, purpose, torch.arange(batch))

    # What a perfect network would say.

    def sure_out(self, clean: Latents, state: State) -> Tensor:
        """All on the truth, in whichever way the objective says that."""
        objective = self.objective
        if isinstance(objective, Noised):
            point = objective.path.at(state.level[:, None, None, None, None])
            noise = point.noise(state.latents.values, clean.values)
            return objective.answer(point, clean.values, noise)
        if isinstance(objective, Mar):
            return F.pad(clean.values, (0, WIDTH - self.spec.channels))
        if isinstance(objective, Givt):
            return gaussians(objective, clean.values)
        if isinstance(objective, MaskGIT):
            return sure_codes(objective, codes_of(clean))
        return clean.values

    def right_out(self, clean: Latents, state: State) -> Tensor:
        """The output of least loss."""
        head = getattr(self.objective, "code_head", None)
        if isinstance(head, Categorical) and head.label_smoothing > 0:
            parts = zip(head.sizes, codes_of(clean).unbind(-1), strict=True)
            return torch.cat([smoothed(c, k, head.label_smoothing).log() for k, c in parts], -1)
        if isinstance(head, Soft):
            codes = enumerate(codes_of(clean).unbind(-1))
            return torch.cat([head.log_targets(c, i) for i, c in codes], dim=-1)
        return self.sure_out(clean, state)

    @property
    def least_loss(self) -> float:
        """The loss of `right_out`: 0 but where the target itself is uncertain (smoothed labels: its
        entropy) or a density has a floor (GIVT)."""
        head = getattr(self.objective, "code_head", None)
        if isinstance(head, Categorical) and head.label_smoothing > 0:
            targets = [smoothed(torch.tensor(0), k, head.label_smoothing) for k in head.sizes]
            return float(torch.stack([torch.special.entr(t).sum() for t in targets]).mean())
        if isinstance(self.objective, Givt):
            return math.log(self.objective.config.min_std) + 0.5 * math.log(2 * math.pi)
        return 0.0


def smoothed(codes: Tensor, size: int, smoothing: float) -> Tensor:
    return (1 - smoothing) * F.one_hot(codes, size).float() + smoothing / size


def gaussians(objective: Givt, mean: Tensor, *, raw_std: float = -1e4) -> Tensor:
    """All components at `mean`, by default as narrow as can be."""
    parts = [torch.zeros_like(mean[..., :1]), mean, torch.full_like(mean, raw_std)]
    return torch.cat(parts * objective.config.num_mixtures, dim=-1)


def sure_codes(objective: MaskGIT, codes: Tensor) -> Tensor:
    head = objective.code_head
    if not isinstance(head, Factorised):
        parts = zip(objective.codebook_sizes, codes.unbind(-1), strict=True)
        return torch.cat([1e4 * F.one_hot(c, k).float() for k, c in parts], dim=-1)
    digits, levels = head.digits[codes[..., 0]], head.of_levels.levels
    made: list[Tensor] = []
    for size, digit in zip(levels, digits.unbind(-1), strict=True):
        if isinstance(head.of_levels, PerLevel):
            made.append(1e4 * F.one_hot(digit, size).float())
        else:
            mean = 2 * digit / (size - 1) - 1
            parts = (torch.zeros_like(mean), mean, torch.full_like(mean, -50))
            made += [x[..., None].expand(*x.shape, NUM_LOGISTICS) for x in parts]
    return torch.cat(made, dim=-1)


def fits(name: str, spec: LatentSpec, settings: dict[str, Any] | None = None) -> bool:
    try:
        OBJECTIVES.config({"name": name, **(settings or {})}).build(spec, WIDTH)
    except UserError:
        return False
    return True


@functools.cache
def cases(name: str) -> tuple[Case, ...]:
    """The defaults on every kind of latents, images and clips; other settings on one of them, with
    images and clips in turn."""
    made = [Case(name, spec, grid) for spec in SPECS.values() if fits(name, spec) for grid in GRIDS]
    for i, settings in enumerate(SETTINGS.get(name, ())):
        spec = [spec for spec in SPECS.values() if fits(name, spec, settings)][-1]
        made.append(Case(name, spec, GRIDS[(i + 1) % 2], settings))
    return tuple(made)
