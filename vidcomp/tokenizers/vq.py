"""VQ: a learned codebook, moved by exponential averages instead of gradients.

arXiv:1711.00937, appendix A.1. A code whose average count falls under a small part of its fair
share is dead, and restarts at a feature of the current batch. Every code starts dead, so the same
rule spreads the codebook over the first batch. Without restarts 20 of 512 codes survived in our
trials, and the PSNR hardly showed it: watch `code_usage`.

Unusual: the statistics of a step are those of the *global* batch, whatever the number of processes
and micro-batches. Counts and sums are added up; the features at which codes restart are those that
win a lottery whose tickets depend on the sample and its position alone, so merging winners in any
order gives the same winners. They are kept outside the buffers, which DistributedDataParallel
would overwrite with those of rank 0.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from pydantic import PositiveInt
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from vidcomp.seeding import Rng
from vidcomp.tokenizers import base
from vidcomp.types import LatentSpec

DECAY = 0.95  # of the averages: a memory of about 20 steps
COMMITMENT_WEIGHT = 0.25  # arXiv:1711.00937, section 3.2
DEAD_SHARE = 0.01  # of the count that a code would have if all were equally frequent


class Config(base.ConvConfig):
    """`codebook_size` codes of `channels` each."""

    codebook_size: PositiveInt = 512
    channels: PositiveInt = 8

    def build(self) -> "Vq":
        return Vq(self)


@dataclass(frozen=True)
class Statistics:
    """Of the features of a step: number and sum for each code, and candidates for restarts.

    A place without a candidate has ticket -1.
    """

    counts: Float[Tensor, " k"]
    sums: Float[Tensor, "k d"]
    candidates: Float[Tensor, "k d"]
    tickets: Float64[Tensor, " k"]

    @staticmethod
    def of(
        features: Float[Tensor, "n d"],
        codes: Int64[Tensor, " n"],
        tickets: Float64[Tensor, " n"],
        codebook_size: int,
    ) -> "Statistics":
        num_features, channels = features.shape
        padding = max(codebook_size - num_features, 0)
        winners = tickets.topk(min(codebook_size, num_features)).indices
        return Statistics(
            counts=codes.bincount(minlength=codebook_size).to(features),
            sums=features.new_zeros(codebook_size, channels).index_add(0, codes, features),
            candidates=F.pad(features[winners], (0, 0, 0, padding)),
            tickets=F.pad(tickets[winners], (0, padding), value=-1.0),
        )

    @staticmethod
    def total(parts: "list[Statistics]") -> "Statistics":
        """The statistics of all the features together."""
        tickets = torch.cat([part.tickets for part in parts])
        candidates = torch.cat([part.candidates for part in parts])
        winners = tickets.topk(len(parts[0].counts)).indices
        return Statistics(
            counts=torch.stack([part.counts for part in parts]).sum(0),
            sums=torch.stack([part.sums for part in parts]).sum(0),
            candidates=candidates[winners],
            tickets=tickets[winners],
        )

    def over_ranks(self) -> "Statistics":
        """The statistics of all processes together, the same on each."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        gathered = [_gather(x) for x in (self.counts, self.sums, self.candidates, self.tickets)]
        return Statistics.total([Statistics(*parts) for parts in zip(*gathered, strict=True)])


class Vq(base.Tokenizer):
    """Values are rows of the codebook."""

    codebook: Tensor
    ema_counts: Tensor
    ema_sums: Tensor

    def __init__(self, config: Config) -> None:
        size, channels = config.codebook_size, config.channels
        super().__init__(
            LatentSpec(config.strides, channels, codebook_sizes=(size,)),
            config.encoder(channels),
            config.decoder(channels),
            foreground_weight=config.foreground_weight,
        )
        start = Rng.make(0, "codebook", torch.arange(size)).normal(channels)
        self.register_buffer("codebook", start)
        self.register_buffer("ema_counts", torch.zeros(size))
        self.register_buffer("ema_sums", torch.zeros(size, channels))
        self.pending: list[Statistics] = []  # one for each micro-batch since the last step

    def bottleneck(self, features: Float[Tensor, "b T H W d"], rng: Rng | None) -> base.Bottleneck:
        features = features.float()
        codes = nearest_code(features.detach(), self.codebook)[..., None]  # b T H W 1
        values = self.dequantize(codes)
        if rng is None:
            return base.Bottleneck(values, codes)
        if self.training:
            self._collect(features.detach(), codes, rng)
        commitment = (features - values).square().mean((1, 2, 3, 4))
        # Straight through; written so that the values are those of the codes to the last bit.
        return base.Bottleneck(
            values + (features - features.detach()),
            codes,
            terms={"commitment": COMMITMENT_WEIGHT * commitment},
        )

    def dequantize(self, codes: Int64[Tensor, "b T H W 1"]) -> Float[Tensor, "b T H W d"]:
        return self.codebook[codes[..., 0]]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the codebook by the statistics of the step, then restart its dead codes."""
        if not self.pending:
            return
        seen = Statistics.total(self.pending).over_ranks()
        self.pending = []
        self.ema_counts.mul_(DECAY).add_(seen.counts, alpha=1 - DECAY)
        self.ema_sums.mul_(DECAY).add_(seen.sums, alpha=1 - DECAY)
        alive = self.ema_counts[:, None] > 0
        mean = self.ema_sums / self.ema_counts.clamp_min(1e-12)[:, None]
        self.codebook.copy_(torch.where(alive, mean, self.codebook))
        self._restart(seen)

    def _restart(self, seen: Statistics) -> None:
        """The deadest code takes the candidate with the highest ticket, and so on down."""
        fair_share = seen.counts.mean()
        order = self.ema_counts.argsort(stable=True)
        dead = (self.ema_counts[order] < DEAD_SHARE * fair_share) & (seen.tickets >= 0)
        counts = torch.where(dead, fair_share, self.ema_counts[order])
        codes = torch.where(dead[:, None], seen.candidates, self.codebook[order])
        self.ema_counts[order] = counts
        self.codebook[order] = codes
        self.ema_sums[order] = torch.where(
            dead[:, None], codes * counts[:, None], self.ema_sums[order]
        )

    def _collect(
        self, features: Float[Tensor, "b T H W d"], codes: Int64[Tensor, "b T H W 1"], rng: Rng
    ) -> None:
        n = features[0, ..., 0].numel()
        coarse, fine = (rng.fold(name).uniform(n).double() for name in ("ticket", "tie"))
        tickets = coarse + fine * 2.0**-24  # uniform draws lie on a grid of 2^-23: no ties
        flat = features.flatten(0, 3)
        size = len(self.codebook)
        self.pending.append(Statistics.of(flat, codes.flatten(), tickets.flatten(), size))


def nearest_code(
    features: Float[Tensor, "*n d"], codebook: Float[Tensor, "k d"]
) -> Int64[Tensor, "*n"]:
    """The row of the codebook at the smallest Euclidean distance; in fp32 also under autocast."""
    with torch.autocast(features.device.type, enabled=False):
        # |x - e|^2 without |x|^2, which is the same for every e.
        distance = codebook.square().sum(-1) - 2 * features @ codebook.T
    return distance.argmin(-1)


def _gather(x: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return parts
