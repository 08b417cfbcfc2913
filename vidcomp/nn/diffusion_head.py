"""A diffusion model of one vector given another: MAR's head for the latent of a token
(arXiv:2406.11838, section 3.1 and appendix).

A small MLP with adaLN, whose condition is the trunk's output at the token.

Unusual: it predicts v = alpha * noise - sigma * data (arXiv:2202.00512), not the noise. The cosine
path starts at alpha = 5e-5, and noise that is wrong by a little means data that are wrong by 20,000
times that: with few steps the first one would throw the sample far out.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.nn.embeddings import FourierEmbedding
from vidcomp.schedules import DiffusionPath
from vidcomp.seeding import Rng


class ResidualMlp(nn.Module):
    """x + gate * MLP(modulated x); the gate starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "*n c"], condition: Float[Tensor, "*n c"]
    ) -> Float[Tensor, "*n c"]:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        normalised = F.layer_norm(x, x.shape[-1:]).to(x.dtype)
        return x + gate * self.mlp(normalised * (1 + scale) + shift)


class DiffusionHead(nn.Module):
    """Two verbs, `loss` and `sample`, and a `mean` for analyses. The noise schedule is its own:
    cosine, 1000 timesteps."""

    def __init__(self, channels: int, condition_width: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.path = DiffusionPath(1000, "cosine")
        self.channels = channels
        self.from_noised = nn.Linear(channels, width)
        self.from_condition = nn.Linear(condition_width, width)
        self.of_level = FourierEmbedding(1, width, max_frequency=16.0)
        self.blocks = nn.ModuleList(ResidualMlp(width) for _ in range(depth))
        self.to_v = nn.Linear(width, channels)
        nn.init.zeros_(self.to_v.weight)
        nn.init.zeros_(self.to_v.bias)

    def v(
        self,
        noised: Float[Tensor, "*n d"],
        level: Float[Tensor, "*n 1"],
        condition: Float[Tensor, "*n c"],
    ) -> Float[Tensor, "*n d"]:
        """The network's answer."""
        of_level = self.of_level(level.reshape(-1, 1)).unflatten(0, level.shape[:-1])
        modulation = F.silu(self.from_condition(condition) + of_level)
        x = self.from_noised(noised)
        for block in self.blocks:
            x = block(x, modulation)
        return self.to_v(x)

    def loss(
        self,
        target: Float[Tensor, "b *n d"],
        condition: Float[Tensor, "b *n c"],
        rng: Rng,
        *,
        draws: int,
    ) -> Float[Tensor, "b *n"]:
        """The squared error of v, averaged over `draws` levels of noise for each vector:
        the head is cheap beside the trunk, whose output serves them all."""
        shape = (draws, *target.shape[1:-1])
        timesteps = 1 + rng.fold("head level").integers(self.path.num_timesteps, *shape)
        level = 1 - timesteps[..., None] / self.path.num_timesteps  # b draws *n 1
        noise = rng.fold("head noise").normal(*shape, self.channels)
        point, target = self.path.at(level), target[:, None]
        noised = point.mix(target, noise)
        repeated = condition[:, None].expand(*noised.shape[:-1], -1)
        error = self.v(noised, level, repeated).float() - point.v(target, noise)
        return error.square().mean(-1).mean(1)

    def sample(
        self,
        conditions: Sequence[Float[Tensor, "b *n c"]],
        weights: Sequence[float],
        rng: Rng,
        *,
        num_steps: int,
        temperature: float,
        where: Bool[Tensor, "b *n"],
    ) -> Float[Tensor, "b *n d"]:
        """Ancestral sampling in `num_steps`; the noise that is added is scaled by `temperature`.
        Vectors are drawn at the marked places, each the same whatever else is marked; 0 elsewhere.

        Conditions are composed here, inside the loop: their answers are added with `weights`.
        """
        shape = (*where.shape[1:], self.channels)
        conditions = [condition[where] for condition in conditions]
        x = rng.fold("head start").normal(*shape)[where]
        for step in range(num_steps):
            level = x.new_full((*x.shape[:-1], 1), step / num_steps)
            here, there = self.path.at(level), self.path.at(level + 1 / num_steps)
            answers = [self.v(x, level, condition).float() for condition in conditions]
            v = sum((w * a for w, a in zip(weights, answers, strict=True)), torch.zeros_like(x))
            data = here.data_from_v(x, v)
            fresh = rng.fold(f"head step {step}").normal(*shape)[where]
            x = here.renoised(there, data, here.noise(x, data), temperature * fresh, eta=1.0)
        return x.new_zeros(*where.shape, self.channels).index_put((where,), x)

    def mean(
        self, condition: Float[Tensor, "b *n c"], rng: Rng, *, draws: int
    ) -> Float[Tensor, "b *n d"]:
        """The expected vector: what is taken for the data in pure noise, averaged over `draws` of
        it. Differentiable; for analyses."""
        level = condition.new_zeros(*condition.shape[:-1], 1)
        point = self.path.at(level)
        total = torch.zeros(*condition.shape[:-1], self.channels, device=condition.device)
        for i in range(draws):
            x = rng.fold(i).normal(*total.shape[1:])
            total = total + point.data_from_v(x, self.v(x, level, condition).float())
        return total / draws
