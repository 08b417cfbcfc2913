"""Guidance: which conditions the network is asked with, and how its answers are weighed.

Every kind is a list of (condition, weight) whose weights sum to 1; the objective adds up what the
network says under each: scores, or log-probabilities of codes. With s(.) for that answer, c the
request, c_i its factor i alone, c\\i all but that, and 0 no factor at all:

- classifier-free (arXiv:2207.12598): s(0) + w (s(c) - s(0)); `negative` factors may stand for 0;
- per-factor weights: to that, (w_i - 1) (s(c) - s(c\\i)) for each factor of `factor_scales` [OWN];
- composed of factors (arXiv:2206.01714, Eq. 11): s(0) + sum_i w_i (s(c_i) - s(0)). The network must
  have been asked with single factors in training: `conditioning.drop_factor` is well above 0;
- composed of objects (arXiv:2502.04549, Definition 5.1): s_b + w sum_k (s(o_k) - s_b), where o_k
  tells of the place of object k alone. The background s_b is what the network says when it is told
  that there is nothing (in a world with clutter, the cluttered ground), or when it is not told.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator

from vidcomp.config import Settings, UserError, nearest
from vidcomp.models.conditioning import Condition
from vidcomp.world.factors import Factors

Level = Annotated[float, Field(ge=0, le=1)]
Compose = Annotated[
    Literal["factors", "objects"] | None,
    BeforeValidator(lambda raw: ("factors" if raw else None) if isinstance(raw, bool) else raw),
]
Term = tuple[Condition, float]

_NOTHING = 1e-9
"""A weight that is left where others cancel."""


class GuidanceConfig(Settings):
    """See the module's text. `compose`: ``factors`` (or true), or ``objects``, each of which weighs
    `guidance_scale`; its background is ``empty`` (told that there is nothing) or ``unconditional``.
    `factor_scales`: by factor's name; in a composition the others have `guidance_scale`.
    `guidance_interval`: the levels, from noise 0 to clean 1, at which there is guidance
    (arXiv:2404.07724); at others the condition is asked alone.
    """

    guidance_scale: float = 2.0
    compose: Compose = None
    compose_background: Literal["empty", "unconditional"] = "empty"
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
        if self.compose == "objects" and self.factor_scales:
            raise ValueError(
                "factor_scales weigh factors, and compose=objects weighs every object by "
                "guidance_scale; drop one of them"
            )
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
        match config.compose:
            case "objects":
                terms = _composed_of_objects(config, condition)
            case "factors":
                terms = _composed_of_factors(config, condition, factors)
            case None if len(factors) or condition.locations is not None:
                terms = _classifier_free(config, condition, factors)
            case None:
                terms = [(condition, 1.0)]
        terms = tuple((asked, weight) for asked, weight in terms if abs(weight) > _NOTHING)
        return cls(condition, terms, config.guidance_interval)

    def at(self, level: float) -> tuple[Term, ...]:
        """The terms at a level of sampling."""
        low, high = self.interval
        return self.terms if low <= level <= high else ((self.condition, 1.0),)


def _composed_of_factors(
    config: GuidanceConfig, condition: Condition, factors: Factors
) -> list[Term]:
    """Places, if any are told, are in every term."""
    scales = [config.factor_scales.get(name, config.guidance_scale) for name in factors.names]
    alone = [(condition.keep([f]), scale) for f, scale in enumerate(scales)]
    return [*alone, (condition.keep(()), 1.0 - sum(scales))]


def _composed_of_objects(config: GuidanceConfig, condition: Condition) -> list[Term]:
    """Where a clip lacks an object that others have, the term is the background: nothing is
    added."""
    if condition.locations is None:
        raise UserError(
            "compose=objects needs the places of objects, and none are asked for; use a generator "
            "with conditioning.locations, or compose=factors"
        )
    background = condition.null()
    if config.compose_background == "empty":
        background = condition.nowhere()
    given = condition.locations.given  # b n
    alone = [
        condition.alone(k).or_else(background, given[:, k])
        for k in given.any(0).nonzero().flatten().tolist()
    ]
    weight = config.guidance_scale
    return [*((asked, weight) for asked in alone), (background, 1.0 - weight * len(alone))]


def _classifier_free(config: GuidanceConfig, condition: Condition, factors: Factors) -> list[Term]:
    others = range(len(factors))
    extra = {factors.names.index(name): w - 1 for name, w in config.factor_scales.items()}
    without = [(condition.keep([k for k in others if k != f]), -w) for f, w in extra.items()]
    rest = (_negative(config, condition, factors), 1 - config.guidance_scale)
    return [(condition, config.guidance_scale + sum(extra.values())), *without, rest]


def _negative(config: GuidanceConfig, condition: Condition, factors: Factors) -> Condition:
    """Only the factors to be avoided, or none; not told of places."""
    columns = [factors.names.index(name) for name in config.negative]
    classes = condition.classes.clone()
    for column, class_name in zip(columns, config.negative.values(), strict=True):
        classes[:, column] = factors.items[column].index(class_name)
    named = torch.zeros_like(condition.given)
    named[:, columns] = True
    values = torch.where(named[..., None], factors.prototypes(classes), condition.values)
    return replace(condition.null(), classes=classes, values=values, given=named)
