"""Soft MaskGIT: the rungs between categorical and continuous. Codes are predicted, and the loss
knows which of them are near each other.

The first paper's ladder goes from MaskGIT's categories to continuous latents in one step
(arXiv:2510.03075, RQ2). Here that step is three: *discrete*, a code is still what is predicted;
*categorical*, all wrong codes are equally wrong; *factorised*, the channels of a code are predicted
each on its own. [OWN: no paper has these objectives in this place.]

- ``heads=joint``: cross-entropy against soft targets, with probability proportional to
  exp(-d^2 / tau) over the distances d of normalised code vectors. Discrete, not categorical.
- ``heads=per_level``: of an FSQ code, each channel's level by a plain cross-entropy. Categorical
  and factorised: the control of the next.
- ``heads=ordinal``: each channel's level by a mixture of discretised logistics (arXiv:1701.05517,
  Eq. 2), which knows the order of the levels. Factorised, not categorical.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.objectives import base
from vidcomp.objectives.maskgit import Categorical, CodeHead, MaskGIT
from vidcomp.types import LatentSpec

NUM_LOGISTICS = 3
"""Of the mixture for each level: what is hidden often has a few likely values far apart."""

_MIN_LOG_SCALE = -7.0
_FAR = 1e6
"""Where a logistic has no mass left, whatever its scale."""


class Config(base.MaskedConfig):
    """`tau`: the squared distance, in normalised latents, at which a target has 1/e of the true
    code's probability; only for ``heads=joint``.
    """

    heads: Literal["joint", "per_level", "ordinal"] = "joint"
    tau: PositiveFloat = 0.25

    def build(self, spec: LatentSpec, width: int) -> MaskGIT:
        sizes = base.require_codes(spec, self.name)
        return MaskGIT(self, sizes, width, self._head(spec, sizes, width))

    def _head(self, spec: LatentSpec, sizes: tuple[int, ...], width: int) -> CodeHead:
        if self.heads == "joint":
            return Soft(sizes, width, channels=spec.channels, tau=self.tau)
        if spec.levels is None:
            raise UserError(
                f"soft_maskgit: heads={self.heads} needs a tokenizer whose codes have levels "
                "(fsq); heads=joint takes any discrete one"
            )
        levels = PerLevel(spec.levels) if self.heads == "per_level" else Ordinal(spec.levels)
        return Factorised(levels, width)


class Soft(Categorical):
    """Soft targets over all codes."""

    def __init__(self, sizes: tuple[int, ...], width: int, *, channels: int, tau: float) -> None:
        super().__init__(sizes, width, label_smoothing=0.0)
        self.tau = tau
        for i, size in enumerate(sizes):
            self.register_buffer(f"vectors_{i}", torch.zeros(size, channels), persistent=False)
        self.knows_codes = False

    @torch.no_grad()
    def learn_codes(self, lookup: base.Lookup) -> None:
        for i, size in enumerate(self.sizes):
            # The other codebooks stand still: only differences within this one matter.
            codes = torch.zeros(size, 1, 1, 1, len(self.sizes), dtype=torch.int64)
            codes[..., i] = torch.arange(size)[:, None, None, None]
            self.get_buffer(f"vectors_{i}").copy_(lookup(codes).values[:, 0, 0, 0])
        self.knows_codes = True

    def cross_entropy(
        self, out: Float[Tensor, "b T H W o"], codes: Int64[Tensor, "b T H W q"]
    ) -> Float[Tensor, "b T H W"]:
        """Less the entropy of the targets, so that the truth costs nothing."""
        divergences: list[Tensor] = []
        for i, log_p in enumerate(self.log_p(out).split(self.sizes, dim=-1)):
            log_target = self.log_targets(codes[..., i], i)
            divergences.append((log_target.exp() * (log_target - log_p)).sum(-1))
        return torch.stack(divergences).mean(0)

    def log_targets(self, codes: Int64[Tensor, "*n"], codebook: int) -> Float[Tensor, "*n k"]:
        """Log-probabilities of a codebook's codes where `codes` are true."""
        assert self.knows_codes, "learn_codes has not been called"
        vectors = self.get_buffer(f"vectors_{codebook}")
        # Not through a matrix product, which gives equal vectors a distance.
        exact = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(vectors[codes.flatten()], vectors, compute_mode=exact)
        return (-distances.square() / self.tau).log_softmax(-1).reshape(*codes.shape, -1)


class PerLevel:
    """The level of a channel is one of so many categories."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        self.levels = self.widths = levels

    def log_p(self, out: Float[Tensor, "b T H W o"]) -> list[Float[Tensor, "b T H W _"]]:
        """Log-probabilities of the levels of each channel, whose outputs are `widths` wide."""
        return [logits.log_softmax(-1) for logits in out.split(self.widths, dim=-1)]


class Ordinal:
    """Levels are intervals of a line; a mixture of logistics on it gives their probabilities."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        self.levels = levels
        self.widths = (3 * NUM_LOGISTICS,) * len(levels)

    def log_p(self, out: Float[Tensor, "b T H W o"]) -> list[Float[Tensor, "b T H W _"]]:
        """As `PerLevel.log_p`."""
        parameters = out.split(self.widths, dim=-1)
        return [
            log_p_of_intervals(size, of_channel)
            for size, of_channel in zip(self.levels, parameters, strict=True)
        ]


def log_p_of_intervals(
    size: int, parameters: Float[Tensor, "b T H W o"]
) -> Float[Tensor, "b T H W _"]:
    """Of `size` intervals with centres from -1 to 1, the first and last of which have no end:
    a network's outputs of order 1 reach all of them."""
    logit, mean, log_scale = parameters[..., None].chunk(3, dim=-2)  # b T H W m 1
    edges = (torch.arange(1, size, device=parameters.device) - size / 2) * (2 / (size - 1))
    z = (edges - mean) * torch.exp(-log_scale.clamp_min(_MIN_LOG_SCALE))  # b T H W m edges
    # log P(low < z < high), without the cancellation of two sigmoids near 1:
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)).
    low, high = F.pad(z, (1, 0), value=-_FAR), F.pad(z, (0, 1), value=_FAR)
    width = torch.log(-torch.expm1((low - high).clamp_max(-1e-6)))
    log_p = F.logsigmoid(high) + F.logsigmoid(-low) + width
    return (logit.log_softmax(-2) + log_p).logsumexp(-2)


class Factorised(CodeHead):
    """Codes of FSQ as independent products of their levels, one for each channel."""

    digits: Tensor

    def __init__(self, levels: PerLevel | Ordinal, width: int) -> None:
        super().__init__()
        self.of_levels = levels
        self.to_levels = nn.Linear(width, sum(levels.widths))
        # Of each code the level of each channel, the first channel the fastest (`tokenizers.fsq`).
        sizes = torch.tensor(levels.levels)
        digits = torch.arange(math.prod(levels.levels))[:, None] // (sizes.cumprod(0) // sizes)
        self.register_buffer("digits", digits % sizes, persistent=False)  # k channels

    def forward(self, hidden: Float[Tensor, "b T H W c"]) -> Float[Tensor, "b T H W o"]:
        return self.to_levels(hidden)

    def log_p(self, out: Float[Tensor, "b T H W o"]) -> Float[Tensor, "b T H W k"]:
        of_channels = self.of_levels.log_p(out)
        return torch.stack([p[..., self.digits[:, c]] for c, p in enumerate(of_channels)]).sum(0)

    def cross_entropy(
        self, out: Float[Tensor, "b T H W o"], codes: Int64[Tensor, "b T H W q"]
    ) -> Float[Tensor, "b T H W"]:
        """Of a whole code: the sum over its channels."""
        truth = self.digits[codes[..., 0]]  # b T H W channels
        parts = [
            -log_p.gather(-1, truth[..., c : c + 1]).squeeze(-1)
            for c, log_p in enumerate(self.of_levels.log_p(out))
        ]
        return torch.stack(parts).sum(0)
