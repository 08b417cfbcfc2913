"""A small image classifier: what a trained judge reads one factor with.

Three convolutions with batch norm, a global max-pool, a linear layer. Both the batch norm and the
max-pool matter: without them, 32-pixel shapes were not learned in 800 steps. The max-pool asks "is
there a corner anywhere?", which is what tells a triangle from a circle wherever it stands.

Unusual: weights are those of `nn.weights.reset`, so a fitted judge is a pure function of its seed.
"""

from jaxtyping import Float
from torch import Tensor, nn


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

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.head(self.features(images).amax((2, 3)))
