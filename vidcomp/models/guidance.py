"""Guidance: which conditions the network is asked with, and how its answers are weighed.

Every kind is a list of (condition, weight) whose weights sum to 1; the objective adds up what the
network says under each: scores, or log-probabilities of codes. With s(.) for that answer, c the
request, c_i its factor i alone, c\\i all but that, and 0 no factor at all:

- classifier-free (arXiv:2207.12598): s(0) + w (s(c) - s(0)); `negative` factors may stand for 0;
- per-factor weights: to that, (w_i - 1) (s(c) - s(c\\i)) for each factor of `factor_scales` [OWN];
- composed (arXiv:2206.01714, Eq. 11): s(0) + sum_i w_i (s(c_i) - s(0)). The network must have been
  asked with single factors in training: `conditioning.drop_factor` has to be well above 0.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field, model_validator

from vidcomp.config import Settings, UserError, nearest
from vidcomp.models.conditioning import Condition
from vidcomp.world.factors import Factors

Level = Annotated[float, Field(ge=0, le=1)]
Term = tuple[Condition, float]

_NOTHING = 1e-9
"""A weight that is left where others cancel."""


class GuidanceConfig(Settings):
    """See the module's text. `factor_scales`: by factor's name; in a composition the others have
    `guidance_scale`. `guidance_interval`: the levels, from noise 0 to clean 1, at which there is
    guidance (arXiv:2404.07724); at others the condition is asked alone.
    """

    guidance_scale: float = 2.0
    compose: bool = False
    factor_scales: dict[str, float] = {}
    negative: dict[str, str] = {}
    guidance_interval: tuple[Level, Level] = (0.0, 1.0)

    @model_validator(mode="after")
    def _one_kind(self) -> "GuidanceConfig":
        low, high = self.guidance_interval
        if low > high:
            raise ValueError(f"guidance_interval: {low} is above {high}; example: [0.2, 0.8]")
        if self.compose and self.negative:
            raise ValueError("compose and negative exclude each other; drop one of them")
        return self


@dataclass(frozen=True)
class Guidance:
    """Conditions and their weights, which sum to 1; a term of weight 0 is never run. `condition` is
    what is asked where there is no guidance."""

    condition: Condition
    terms: tuple[Term, ...]
    interval: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, config: GuidanceConfig, condition: Condition, factors: Factors) -> "Guidance":
        """Raises UserError if `config` names a factor or class that there is not."""
        for name in (*config.factor_scales, *config.negative):
            if name not in factors.names:
                raise UserError(f"guidance: no factor {name!r}; {nearest(name, factors.names)}")
        composed = _composed if config.compose else _classifier_free
        terms = composed(config, condition, factors) if len(factors) else [(condition, 1.0)]
        terms = tuple((asked, weight) for asked, weight in terms if abs(weight) > _NOTHING)
        return cls(condition, terms, config.guidance_interval)

    def at(self, level: float) -> tuple[Term, ...]:
        """The terms at a level of sampling."""
        low, high = self.interval
        return self.terms if low <= level <= high else ((self.condition, 1.0),)


def _composed(config: GuidanceConfig, condition: Condition, factors: Factors) -> list[Term]:
    scales = [config.factor_scales.get(name, config.guidance_scale) for name in factors.names]
    alone = [(condition.keep([f]), scale) for f, scale in enumerate(scales)]
    return [*alone, (condition.null(), 1 - sum(scales))]


def _classifier_free(config: GuidanceConfig, condition: Condition, factors: Factors) -> list[Term]:
    others = range(len(factors))
    extra = {factors.names.index(name): w - 1 for name, w in config.factor_scales.items()}
    without = [(condition.keep([k for k in others if k != f]), -w) for f, w in extra.items()]
    rest = (_negative(config, condition, factors), 1 - config.guidance_scale)
    return [(condition, config.guidance_scale + sum(extra.values())), *without, rest]


def _negative(config: GuidanceConfig, condition: Condition, factors: Factors) -> Condition:
    """Only the factors to be avoided, or none."""
    columns = [factors.names.index(name) for name in config.negative]
    classes = condition.classes.clone()
    for column, class_name in zip(columns, config.negative.values(), strict=True):
        classes[:, column] = factors.items[column].index(class_name)
    named = torch.zeros_like(condition.given)
    named[:, columns] = True
    values = torch.where(named[..., None], factors.prototypes(classes), condition.values)
    return replace(condition, classes=classes, values=values, given=named)
