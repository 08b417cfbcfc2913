"""How the network is told of one factor: by its class, or by its value, exact or in bins."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.nn.embeddings import FourierEmbedding
from vidcomp.world.factors import Factor

Encoding = Literal["class", "exact", "quantized"]


def factor_embedding(encoding: Encoding, factor: Factor, bins: int, width: int) -> nn.Module:
    match encoding:
        case "class":
            return nn.Embedding(len(factor.classes), width)
        case "exact":
            return FourierEmbedding(factor.value_size, width, max_frequency=4.0)
        case "quantized":
            return BinnedEmbedding(factor, bins=bins, width=width)


class BinnedEmbedding(nn.Module):
    """The sum of a table's rows: one row for the bin that each number of a factor's value falls
    into.

    The widest range has `bins` bins. Narrower ones have as many as are needed for bins no wider
    than these, which may be one: with 2 bins, what is told of red and blue is which of them it is,
    and not whether the green in it is above the mean.
    """

    low: Tensor
    bin_width: Tensor
    num_bins: Tensor
    first_row: Tensor

    def __init__(self, factor: Factor, *, bins: int, width: int) -> None:
        super().__init__()
        prototypes = torch.tensor([c.prototype for c in factor.classes])
        spreads = torch.tensor([c.spread for c in factor.classes])
        low, high = (prototypes - spreads).amin(0), (prototypes + spreads).amax(0)
        extent = high - low
        shares = extent / extent.amax().clamp_min(1e-12)  # 1e-3: 1/3 of 3 bins is one bin
        num_bins = (shares * bins - 1e-3).ceil().long().clamp_min(1)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("bin_width", extent / num_bins, persistent=False)
        self.register_buffer("num_bins", num_bins, persistent=False)
        self.register_buffer("first_row", num_bins.cumsum(0) - num_bins, persistent=False)
        self.table = nn.Embedding(int(num_bins.sum()), width)
        self._refuse_to_merge_classes(factor, prototypes)

    def bins_of(self, values: Float[Tensor, "b v"]) -> Int64[Tensor, "b v"]:
        """The bin of each number; those beyond the range fall into the outermost."""
        bins = ((values - self.low) / self.bin_width.clamp_min(1e-12)).floor().long()
        return torch.minimum(bins.clamp_min(0), self.num_bins - 1)

    def forward(self, values: Float[Tensor, "b v"]) -> Float[Tensor, "b c"]:
        return self.table(self.bins_of(values) + self.first_row).sum(1)

    def _refuse_to_merge_classes(self, factor: Factor, prototypes: Float[Tensor, "k v"]) -> None:
        seen: dict[tuple[int, ...], str] = {}
        for name, bins in zip(factor.class_names, self.bins_of(prototypes).tolist(), strict=True):
            if (other := seen.setdefault(tuple(bins), name)) != name:
                raise UserError(
                    f"conditioning.bins={self.num_bins.amax()} puts {other!r} and {name!r} of "
                    f"factor {factor.name!r} into one bin; use more bins, or encode it as 'class'"
                )
