"""A small image classifier: what a trained judge reads one factor with.

Three convolutions with batch norm, a global max-pool, a linear layer. Both the batch norm and the
max-pool matter: without them, 32-pixel shapes were not learned in 800 steps. The max-pool asks "is
there a corner anywhere?", which is what tells a triangle from a circle wherever it stands.

Unusual: weights come from an `Rng`, so that a fitted judge is a pure function of its seed.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidcomp.seeding import Rng


class Classifier(nn.Module):
    """Images of any size from 8 pixels up to class logits."""

    def __init__(self, in_channels: int, *, num_classes: int, width: int) -> None:
        super().__init__()
        # 6 x 6 at stride 2 is a 3 x 3 convolution after PixelUnshuffle(2), and takes odd sizes too.
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 6, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 3 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(3 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(3 * width, num_classes)

    @torch.no_grad()
    def reset(self, rng: Rng) -> None:
        """Fresh weights from the one stream of `rng`, with the variance of arXiv:1502.01852."""
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                bound = math.sqrt(6 / weight[0].numel())
                weight.copy_((2 * rng.fold(name).uniform(*weight.shape)[0] - 1) * bound)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)  # batch norm's scale; biases
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.head(self.features(images).amax((2, 3)))
