"""Fresh weights from an `Rng`, for small networks that must be a pure function of their seed."""

import math

import torch
from torch import nn

from vidcomp.seeding import Rng


@torch.no_grad()
def reset(network: nn.Module, rng: Rng) -> None:
    """Weights from the one stream of `rng`, with the variance of arXiv:1502.01852; biases 0, the
    scales of norms 1."""
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            bound = math.sqrt(6 / weight[0].numel())
            weight.copy_((2 * rng.fold(name).uniform(*weight.shape)[0] - 1) * bound)
        else:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.reset_running_stats()
