"""A small 3-D convolutional network: a whole clip to one vector, which says what the clip shows.

Unlike the judge's classifiers (`nn.classifier`: one for each factor, one or two frames, a max-pool)
it is one network for everything, sees the clip at once, and averages over place and time. It is
fitted to tell all factors from its vector, so clips that show the same lie close together.

Its weights are those of `nn.weights.reset`, so a fitted network is a pure function of its seed.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vidcomp.types import Video


class ClipNetwork(nn.Module):
    """Clips of any length, of frames from 8 pixels up, to vectors with `dimensions` entries."""

    def __init__(self, *, dimensions: int, width: int, class_counts: Sequence[int]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv3d(3, width, (3, 4, 4), stride=(1, 2, 2), padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.GELU(),
            nn.Conv3d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm3d(2 * width),
            nn.GELU(),
            nn.Conv3d(2 * width, dimensions, 3, stride=(1, 2, 2), padding=1, bias=False),
            nn.BatchNorm3d(dimensions),
            nn.GELU(),
        )
        self.heads = nn.ModuleList(nn.Linear(dimensions, count) for count in class_counts)

    def forward(self, video: Video) -> Float[Tensor, "b d"]:
        return self.trunk(video).mean((2, 3, 4))

    def logits(self, features: Float[Tensor, "b d"]) -> list[Float[Tensor, "b k"]]:
        """The classes of each factor, as read from the vectors."""
        return [head(features) for head in self.heads]
