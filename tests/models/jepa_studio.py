"""Generators with a JEPA head, small and reproducible, for the tests of it."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator, GeneratorConfig, Network
from vidcomp.models.jepa import JepaHead
from vidcomp.objectives.base import OBJECTIVES
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Grid, Latents, LatentSpec, State
from vidcomp.world.concepts import choose

OBJECTIVE_NAMES = OBJECTIVES.names()
FACTORS = choose({"shape": ["circle", "square"], "motion": ["left", "up"]})
SPEC = LatentSpec(Grid(4, 8, 8), 3, codebook_sizes=(11,))
GRID = Grid(3, 2, 2)
BATCH = 4
WIDTH = 24
ALARMS = ("jepa_target_std", "jepa_target_rank", "jepa_target_cosine")


def generator_of(
    objective: str | dict[str, Any] = "maskgit",
    conditioning: Mapping[str, Any] | None = None,
    **jepa: Any,
) -> Generator:
    config = GeneratorConfig.model_validate(
        {
            "objective": objective,
            "backbone": {"depth": 4, "width": WIDTH, "heads": 2},
            "conditioning": dict(conditioning or {}),
            "jepa": jepa,
        }
    )
    with initial_weights(0):
        generator = config.build(SPEC, FACTORS)
    generator.objective.learn_codes(lookup)
    return generator


def lookup(codes: Tensor) -> Latents:
    table = Rng.make(0, "table", torch.arange(11)).normal(3)
    return Latents(table[codes[..., 0]], codes)


def open_gates(generator: Generator) -> Generator:
    """As after training: behind closed gates no gradient passes. The target stays as it is."""
    with torch.no_grad():
        for name, parameter in generator.network.named_parameters():
            if "modulation" in name:
                parameter.copy_(
                    0.2 * Rng.make(1, name, torch.tensor([0])).normal(*parameter.shape)[0]
                )
    return generator


def clean() -> Latents:
    rng = Rng.make(0, "clean", torch.arange(BATCH))
    return Latents(rng.normal(*GRID, 3), rng.integers(11, *GRID, 1))


def condition() -> Condition:
    classes = FACTORS.combinations()[:BATCH]
    return Condition.of(classes, FACTORS.prototypes(classes))


def rng(step: int = 0) -> Rng:
    return Rng.make(0, "train", torch.arange(BATCH), step=step)


def train(generator: Generator, steps: int) -> None:
    optimizer = torch.optim.AdamW([p for p in generator.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        generator(clean(), condition(), rng(step)).total().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        generator.after_step()


def head_of(generator: Generator) -> JepaHead:
    assert generator.jepa is not None
    return generator.jepa


class Seen:
    """The states and rows that a network's trunk is given from now on."""

    def __init__(self, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        assert isinstance(network, Network)
        self.states: list[State] = []
        self.had_gradient: list[bool] = []
        trunk = network.trunk

        def watched(state: State, *args: Any, **kwargs: Any) -> Any:
            self.states.append(state)
            self.had_gradient.append(torch.is_grad_enabled())
            return trunk(state, *args, **kwargs)

        monkeypatch.setattr(network, "trunk", watched)
