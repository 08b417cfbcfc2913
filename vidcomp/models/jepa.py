"""The JEPA head: predict, from hidden states of the corrupted clip, those of the clean one.

The first paper's repair of masked models (arXiv:2510.03075, RQ4): at chosen layers a light
predictor maps the network's hidden states to those of an EMA copy that sees everything;
stop-gradient on the targets; loss on the positions that the objective predicts; weight 0.6. It
costs nothing at sampling, where neither predictor nor copy is built.

Chosen here, because the paper's text does not say: targets are layer-normalised without gain (so
that the loss cannot be lowered by shrinking them), the predictor is a two-layer MLP for each layer,
and the terms of the layers are averaged.
"""

import copy
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.config import Settings, UserError
from vidcomp.types import Losses, mean_where


class JepaConfig(Settings):
    """`layers` are 0-indexed; None spreads about three over the later half: {2, 3} of 4, {7, 9, 11}
    of 12.
    """

    weight: PositiveFloat = 0.6
    layers: tuple[int, ...] | None = None
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99

    def resolve_layers(self, depth: int) -> tuple[int, ...]:
        """The chosen layers of a trunk of `depth` blocks, checked."""
        later_half = range(depth - 1, depth // 2 - 1, -max(1, depth // 6))
        layers = tuple(sorted(later_half if self.layers is None else self.layers))
        if not layers or len(set(layers)) < len(layers) or layers[0] < 0 or layers[-1] >= depth:
            raise UserError(
                f"jepa.layers={list(layers)}: name one or more different layers; "
                f"a trunk of depth {depth} has 0 to {depth - 1}"
            )
        return layers


class JepaHead(nn.Module):
    """The EMA copy of a network, and the predictors to its hidden states."""

    def __init__(self, config: JepaConfig, network: nn.Module, *, depth: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.layers = config.resolve_layers(depth)
        self.target = copy.deepcopy(network).requires_grad_(False)
        self.predictors = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in self.layers
        )

    def loss(
        self,
        context: tuple[Float[Tensor, "b n c"], ...],
        target: tuple[Float[Tensor, "b n c"], ...],
        predict: Bool[Tensor, "b T H W"],
    ) -> Losses:
        """Squared error on the predicted positions, averaged over channels and layers.

        ``jepa_target_std`` is the standard deviation over a clip's positions of the raw target
        states: near 0 means that the target has collapsed, and says the same everywhere.
        """
        where = predict.flatten(1)
        errors: list[Tensor] = []
        spreads: list[Tensor] = []
        for predictor, source, goal in zip(self.predictors, context, target, strict=True):
            normalised = F.layer_norm(goal.detach().float(), goal.shape[-1:])
            error = (predictor(source).float() - normalised).square().mean(-1)
            errors.append(mean_where(error, where))
            spreads.append(goal.detach().float().std(1, correction=0).mean(-1))
        return Losses.of(
            {"jepa": torch.stack(errors).mean(0)},
            {"jepa": self.config.weight},
            jepa_target_std=torch.stack(spreads).mean(0),
        )

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the copy towards `network`, after an optimiser step."""
        for ours, theirs in zip(self.target.parameters(), network.parameters(), strict=True):
            ours.lerp_(theirs, 1 - self.config.ema_decay)
