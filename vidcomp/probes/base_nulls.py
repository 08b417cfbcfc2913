"""What locality would be for the data's sake alone: the Wiener denoiser, optimal if the latents of
a dataset were Gaussian with the mean and covariance that they have.

A linear denoiser with its covariance is about as local as trained networks are (arXiv:2509.09672),
so no map should be shown without it. It knows of no objects.

Unusual: hidden positions are noise without bound, so that one denoiser serves noised and masked
latents. What is shown clean has the noise of the directions that the low rank leaves out. Of codes
it sees the vectors, and predicts vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.probes.base_locality import Belief, Scenes
from vidcomp.seeding import Rng

MOST_CLIPS = 4000
RANK = 128
_LEAST_ALPHA = 1e-4  # of the latents in what is seen: below, it is noise
_MORE = 16  # directions that are followed and left out: the last ones are found worst
_ITERATIONS = 4


@dataclass(frozen=True)
class Wiener:
    """Latents are mean + basis z + rest: z with `variances`, a rest of variance `rest` that nothing
    is known of. `D` = T H W d numbers in all."""

    mean: Float[Tensor, " D"]
    basis: Float[Tensor, "D k"]
    variances: Float[Tensor, " k"]
    rest: float

    @classmethod
    def of(cls, latents: Float[Tensor, "n T H W d"], *, rank: int = RANK) -> "Wiener":
        """Of a dataset, by its `rank` first principal components (randomised subspace iteration,
        arXiv:0909.4061, Alg. 4.4)."""
        if len(latents) < 2:
            raise UserError(f"a covariance takes two clips or more, got {len(latents)}")
        flat = latents[:MOST_CLIPS].flatten(1).float()
        mean = flat.mean(0)
        centred = (flat - mean) / (len(flat) - 1) ** 0.5
        columns = min(rank + _MORE, *centred.shape)
        start = Rng.make(0, "wiener", torch.arange(flat.shape[1])).normal(columns)
        basis = start.to(centred)
        for _ in range(_ITERATIONS):
            basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
        # Rotated, so that the components are uncorrelated.
        _, sizes, turn = torch.linalg.svd(centred @ basis, full_matrices=False)
        basis, variances = (basis @ turn.mT)[:, :rank], sizes[:rank].square()
        left = float(centred.square().sum() - variances.sum())
        return cls(mean, basis, variances, max(left, 0) / flat.shape[1])

    def belief(self, scenes: Scenes) -> Belief:
        """At work on latents like these, noised or hidden in the same way."""
        clean = scenes.clean
        rng = Rng.make(0, "wiener noise", torch.arange(len(clean), device=clean.device))
        x = scenes.alpha * clean + scenes.sigma * rng.normal(*clean.shape[1:])
        other = x.roll(1, 0) if scenes.sigma else clean.roll(1, 0)
        alpha = max(scenes.alpha, _LEAST_ALPHA)
        noise = (scenes.sigma / alpha) ** 2 if scenes.sigma else self._left_out()
        denoise = self.denoiser(scenes.shown / noise)
        here = replace(scenes, x=x, other=other)
        return Belief(here, lambda x, points, given: denoise(x / alpha))

    def denoiser(
        self, precision: Float[Tensor, "b T H W"]
    ) -> Callable[[Tensor], Float[Tensor, "b T H W d"]]:
        """E[latents | seen] as a function of what is seen, where the noise of each position has
        that `precision`, 1 / s^2.

        With the same at all positions it is mu + S (S + s^2)^-1 (seen - mu), for S of low rank.
        """
        channels = len(self.mean) // precision[0].numel()
        weight = precision.flatten(1).float().repeat_interleave(channels, dim=1)  # b D
        basis = self.basis * self.variances.sqrt()  # x = mean + basis z, z of unit variance
        inner = torch.einsum("Dk,bD,Dl->bkl", basis, weight, basis)
        factor = torch.linalg.cholesky(inner + torch.eye(inner.shape[-1]).to(inner))

        def denoise(seen: Tensor) -> Float[Tensor, "b T H W d"]:
            off = (weight * (seen.flatten(1) - self.mean)) @ basis
            z = torch.cholesky_solve(off[..., None], factor)[..., 0]
            return (self.mean + z @ basis.T).reshape(seen.shape)

        return denoise

    def _left_out(self) -> float:
        """The variance of what the low rank leaves out, and a little for the inverse's sake."""
        return self.rest + 1e-3 * float(self.variances.sum()) / len(self.mean)
