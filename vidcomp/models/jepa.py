"""The JEPA head: predict, from hidden states of the corrupted clip, those of the clean one.

The first paper's repair of masked models (arXiv:2510.03075, RQ4): at chosen layers a light
predictor maps the network's hidden states to those of an EMA copy that sees everything;
stop-gradient on the targets; loss on the hidden positions; weight 0.6. It costs nothing at
sampling, where neither predictor nor copy is built.

Chosen here, because the paper's text does not say: targets are layer-normalised without gain (so
that the loss cannot be lowered by shrinking them), the predictor is a two-layer MLP for each layer,
the terms of the layers are averaged, and the objective's own mask is the only one. Each is a key.

Unusual: `control` holds what a claim about JEPA has to be compared with [OWN].
"""

import copy
import math
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.config import Settings, UserError
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Losses, mean_where

Decay = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class JepaConfig(Settings):
    """`layers` are 0-indexed; None spreads about three over the later half: {2, 3} of 4, {7, 9, 11}
    of 12.

    `ema_decay` rises linearly to `ema_decay_end` over `ramp_steps`. ``target=shared`` takes the
    average that sampling uses, whose decay is ``train.ema_decay``, instead of a copy of its own.
    `loss_on`: hidden positions or all; on a noise path all but given frames are hidden.

    `block`: hide a block of these shares of the frames, height and width as well, in masked
    objectives, as I-JEPA does (arXiv:2301.08243); the level that the network is told stays that of
    the objective's own mask.

    `control`: ``no_masking`` predicts from the clean clip, at all positions; ``shuffled`` predicts
    the states of the next clip in the batch, so its numbers depend on how that is cut;
    ``regression`` predicts the tokenizer's latents as they are, without any target network. The
    same loss without an average is ``ema_decay: 0``.
    """

    weight: PositiveFloat = 0.6
    layers: tuple[int, ...] | None = None
    ema_decay: Decay = 0.99
    ema_decay_end: Decay | None = None
    ramp_steps: Annotated[int, Field(ge=1)] = 1000
    target: Literal["separate", "shared"] = "separate"
    predictor: Literal["identity", "linear", "mlp", "transformer"] = "mlp"
    distance: Literal["mse", "smooth_l1", "cosine"] = "mse"
    normalize_targets: bool = True
    reduce: Literal["mean", "sum"] = "mean"
    loss_on: Literal["hidden", "all"] = "hidden"
    block: tuple[Share, Share, Share] | None = None
    control: Literal["no_masking", "shuffled", "regression"] | None = None

    @model_validator(mode="after")
    def _keys_go_together(self) -> "JepaConfig":
        if self.control == "regression" and self.predictor == "identity":
            raise ValueError(
                "control=regression goes from hidden states to latents, which "
                "predictor=identity cannot; use linear, mlp or transformer"
            )
        if self.control == "no_masking" and self.block:
            raise ValueError("control=no_masking hides nothing; drop block")
        of_copy = JepaConfig.model_fields
        for key in ("ema_decay", "ema_decay_end", "ramp_steps"):
            if self.target == "shared" and getattr(self, key) != of_copy[key].default:
                raise ValueError(
                    f"target=shared follows train.ema_decay, so {key} has no meaning; drop it, or "
                    "use target=separate"
                )
        return self

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

    updates: Tensor

    def __init__(
        self,
        config: JepaConfig,
        network: nn.Module,
        *,
        depth: int,
        width: int,
        heads: int,
        channels: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = config.resolve_layers(depth)
        needs_copy = config.target == "separate" and config.control != "regression"
        self.copy = copy.deepcopy(network).requires_grad_(False) if needs_copy else None
        self.shared: tuple[nn.Module, ...] = ()  # in a tuple: not a part of this module
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        width_out = channels if config.control == "regression" else width
        self.predictors = nn.ModuleList(
            _predictor(config.predictor, width, width_out, heads) for _ in self.layers
        )

    @property
    def target(self) -> nn.Module:
        """The network whose hidden states are predicted."""
        if self.copy is not None:
            return self.copy
        assert self.shared, "target=shared: the trainer has not said which average to use"
        return self.shared[0]

    def hidden_block(self, grid: Grid, rng: Rng) -> Bool[Tensor, "b T H W"]:
        """A block of each clip, of the shares that `block` says, at a uniform place."""
        assert self.config.block is not None
        inside: list[Tensor] = []
        for axis, (size, share) in enumerate(zip(grid, self.config.block, strict=True)):
            length = min(size, max(1, round(share * size)))
            first = rng.fold(f"block {axis}").integers(size - length + 1)
            place = torch.arange(size, device=first.device)
            within = (place >= first[:, None]) & (place < first[:, None] + length)
            inside.append(within.reshape(len(first), *(-1 if k == axis else 1 for k in range(3))))
        return inside[0] & inside[1] & inside[2]

    def loss(
        self,
        context: tuple[Float[Tensor, "b n c"], ...],
        target: tuple[Float[Tensor, "b n o"], ...],
        where: Bool[Tensor, "b T H W"],
    ) -> Losses:
        """The distance of what is predicted from `context` at the positions `where`.

        Alarms, of the raw targets: ``jepa_target_std`` over a clip's positions (near 0, the target
        says the same everywhere), ``jepa_target_rank``, the number of directions in which they
        vary (participation ratio), and ``jepa_target_cosine`` to their mean (near 1, no contrast).
        """
        if self.config.control == "shuffled" and len(where) == 1:
            raise UserError(
                "jepa.control=shuffled pairs each clip with another of its batch, and a process "
                "has 1 at a time; raise train.batch_size, or lower train.accumulate"
            )
        positions = where.flatten(1)
        errors: list[Tensor] = []
        alarms: list[Tensor] = []
        for predictor, source, goal in zip(self.predictors, context, target, strict=True):
            goal = goal.detach().float()
            alarms.append(_alarms(goal))
            if self.config.control == "shuffled":
                goal = goal.roll(1, 0)
            if self.config.normalize_targets and self.config.control != "regression":
                goal = F.layer_norm(goal, goal.shape[-1:])
            made = predictor(source).float()
            errors.append(mean_where(self._distance(made, goal), positions))
        total = torch.stack(errors).sum(0)
        if self.config.reduce == "mean":
            total = total / len(errors)
        std, rank, cosine = torch.stack(alarms).mean(0)
        metrics = {"jepa_target_std": std, "jepa_target_rank": rank, "jepa_target_cosine": cosine}
        return Losses({"jepa": total}, {"jepa": self.config.weight}, metrics)

    def _distance(
        self, made: Float[Tensor, "b n o"], goal: Float[Tensor, "b n o"]
    ) -> Float[Tensor, "b n"]:
        match self.config.distance:
            case "mse":
                return (made - goal).square().mean(-1)
            case "smooth_l1":
                return F.smooth_l1_loss(made, goal, reduction="none").mean(-1)
            case "cosine":
                return 1 - F.cosine_similarity(made, goal, dim=-1)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the copy towards `network`, after an optimiser step."""
        decay = self.decay()
        self.updates += 1
        if self.copy is not None:
            for ours, theirs in zip(self.copy.parameters(), network.parameters(), strict=True):
                ours.lerp_(theirs, 1 - decay)

    def decay(self) -> float:
        """Of the next update."""
        start, end = self.config.ema_decay, self.config.ema_decay_end
        if end is None:
            return start
        return start + (end - start) * min(1.0, int(self.updates) / self.config.ramp_steps)


def _predictor(kind: str, width: int, width_out: int, heads: int) -> nn.Module:
    match kind:
        case "identity":
            return nn.Identity()
        case "linear":
            return nn.Linear(width, width_out)
        case "transformer":  # a hidden position may look at the visible ones
            block = nn.TransformerEncoderLayer(
                width,
                heads,
                4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            return nn.Sequential(block, nn.Linear(width, width_out))
        case _:
            layers = (nn.Linear(width, width), nn.GELU(), nn.Linear(width, width_out))
            return nn.Sequential(*layers)


def _alarms(states: Float[Tensor, "b n c"]) -> Float[Tensor, "3 b"]:
    """Standard deviation, participation ratio and cosine to the mean, of each clip's states."""
    mean = states.mean(1, keepdim=True)
    centred = states - mean
    # n times the covariance, or the smaller matrix with the same non-zero eigenvalues.
    wide = centred.shape[1] < centred.shape[2]
    gram = centred @ centred.mT if wide else centred.mT @ centred
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    rank = trace.square() / gram.square().sum((1, 2)).clamp_min(1e-12)
    cosine = F.cosine_similarity(states, mean, dim=-1).mean(1)
    std = (trace / math.prod(states.shape[1:])).sqrt()
    return torch.stack([std, rank, cosine])
