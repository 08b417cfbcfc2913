"""The vocabulary: what flows between the parts, with shapes and units.

Letters, used everywhere: `b` batch; `t h w` frames, height, width in pixels; `T H W` latent grid;
`d` latent channels; `k` codebook size; `q` codes per position; `f` factors; `v` components of a
factor's value; `c` hidden width.

Video is float in [-1, 1], laid out ``b 3 t h w``; clips on disk are uint8 ``t h w 3``; latents are
channels-last ``b T H W d``. **An image is a video with t = 1**: it has no code path of its own.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vidcomp.config import UserError

Video = Float[Tensor, "b 3 t h w"]
Frames = UInt8[Tensor, "b t h w 3"]


class Grid(NamedTuple):
    """A size or a stride in time, height and width."""

    t: int
    h: int
    w: int

    @property
    def size(self) -> int:
        return self.t * self.h * self.w


def video_from_frames(frames: Frames) -> Video:
    """uint8 clips to the float video that networks see."""
    return rearrange(frames, "b t h w c -> b c t h w").float().div(127.5).sub(1)


def frames_from_video(video: Video) -> Frames:
    """Float video to uint8 clips, rounded and clipped."""
    pixels = video.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(pixels, "b c t h w -> b t h w c").contiguous()


def check_video(video: Tensor) -> None:
    """Raise UserError unless `video` keeps the contract: float, ``b 3 t h w``, within [-1, 1]."""
    if video.ndim != 5 or video.shape[1] != 3 or not video.is_floating_point():
        raise UserError(
            f"a video is float 'b 3 t h w', got {video.dtype} of shape {tuple(video.shape)}; "
            "uint8 't h w 3' clips go through vidcomp.types.video_from_frames first"
        )
    if video.numel() and not (video.amin() >= -1.001 and video.amax() <= 1.001):
        raise UserError(
            f"a video's values lie in [-1, 1], got [{video.amin():.3g}, {video.amax():.3g}]; "
            "pixels in [0, 1] become 2 * x - 1, NaN is never legal"
        )


@dataclass(frozen=True)
class LatentSpec:
    """What a tokenizer makes: its strides, channels and, if discrete, its codes.

    `codebook_sizes` has one entry for each of the `q` codes at a position, and is None for
    continuous latents. `levels` are the FSQ levels of each channel, None otherwise.
    """

    strides: Grid
    channels: int
    codebook_sizes: tuple[int, ...] | None = None
    levels: tuple[int, ...] | None = None

    def grid(self, num_frames: int, height: int, width: int) -> Grid:
        """The latent grid of a clip: T = 1 + (t - 1) / stride, H = h / stride; others raise."""
        s = self.strides
        if num_frames < 1 or (num_frames - 1) % s.t:
            legal = ", ".join(str(1 + k * s.t) for k in range(5))
            raise UserError(
                f"{num_frames} frames do not fit a temporal stride of {s.t}; legal lengths are "
                f"1 + {s.t}k: {legal}, ... (nothing is padded or dropped in silence)"
            )
        for name, size, stride in (("height", height, s.h), ("width", width, s.w)):
            if size < stride or size % stride:
                below, above = size // stride * stride, (size // stride + 1) * stride
                near = f"{below} and {above}" if below else f"{above}"
                raise UserError(
                    f"{name} {size} does not fit a stride of {stride}; "
                    f"legal sizes are its multiples, the nearest {near}"
                )
        return Grid(1 + (num_frames - 1) // s.t, height // s.h, width // s.w)


@dataclass(frozen=True)
class Latents:
    """Latents of a batch. `values` have zero mean and unit variance: the tokenizer sees to it."""

    values: Float[Tensor, "b T H W d"]
    codes: Int64[Tensor, "b T H W q"] | None = None

    @property
    def grid(self) -> Grid:
        return Grid(*self.values.shape[1:4])

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: "Tensor | slice") -> "Latents":
        return Latents(self.values[rows], None if self.codes is None else self.codes[rows])

    def to(self, device: "torch.device | str") -> "Latents":
        codes = None if self.codes is None else self.codes.to(device)
        return Latents(self.values.to(device), codes)


@dataclass(frozen=True)
class State:
    """What the network sees, in training and at every step of sampling.

    `known` marks the positions whose content is clean: unmasked tokens, or the given first frames.
    `level` is the progress from nothing (0: all masked, pure noise) to everything (1: clean).
    `wanted` marks the positions that a sampler will write next, where it knows that beforehand: an
    objective whose draws are dear need not draw the others.
    """

    latents: Latents
    known: Bool[Tensor, "b T H W"]
    level: Float[Tensor, " b"]
    wanted: Bool[Tensor, "b T H W"] | None = None

    def to(self, device: "torch.device | str") -> "State":
        return replace(
            self,
            latents=self.latents.to(device),
            known=self.known.to(device),
            level=self.level.to(device),
            wanted=None if self.wanted is None else self.wanted.to(device),
        )


@dataclass(frozen=True)
class Corrupted:
    """A training example: the state, what should come out, and where the loss counts."""

    state: State
    target: Latents | Float[Tensor, "b T H W d"]
    predict: Bool[Tensor, "b T H W"]

    def hiding(self, where: Bool[Tensor, "b T H W"]) -> "Corrupted":
        """The same with more positions hidden, which are to be predicted too."""
        state = replace(self.state, known=self.state.known & ~where)
        return replace(self, state=state, predict=self.predict | where)


@dataclass(frozen=True)
class Prediction:
    """What `Objective.read` says should stand at each position: codes, or (noise-free) values.

    `confidence` is the log-probability of what was written, None where an objective has no such
    notion (which forbids the confidence order). `effective_samples`: where a draw was resampled
    from weighted candidates, how many equally weighted ones they are worth.
    """

    values: Float[Tensor, "b T H W d"] | None = None
    codes: Int64[Tensor, "b T H W q"] | None = None
    confidence: Float[Tensor, "b T H W"] | None = None
    effective_samples: Float[Tensor, "b T H W"] | None = None


@dataclass(frozen=True)
class Losses:
    """Named loss terms, one value per clip, with their weights.

    The mean over the *global* batch is taken in one place, the trainer. `metrics` are logged, not
    trained.
    """

    terms: dict[str, Float[Tensor, " b"]]
    weights: dict[str, float]
    metrics: dict[str, Float[Tensor, " b"]]

    @classmethod
    def of(
        cls, terms: dict[str, Tensor], weights: dict[str, float] | None = None, /, **metrics: Tensor
    ) -> "Losses":
        weights = weights or {}
        return Losses(terms, {name: weights.get(name, 1.0) for name in terms}, dict(metrics))

    def total(self) -> Float[Tensor, " b"]:
        """The weighted sum of the terms, one value per clip."""
        return torch.stack([self.weights[name] * term for name, term in self.terms.items()]).sum(0)

    def plus(self, other: "Losses") -> "Losses":
        """Both sets of terms."""
        return Losses(
            {**self.terms, **other.terms},
            {**self.weights, **other.weights},
            {**self.metrics, **other.metrics},
        )


def mean_where(x: Float[Tensor, "b *n"], where: Bool[Tensor, "b *n"]) -> Float[Tensor, " b"]:
    """The mean over the marked positions of each clip; 0 for a clip without any."""
    axes = tuple(range(1, x.ndim))
    marked = torch.where(where, x, 0)  # a product would let NaN and infinity through
    return marked.sum(axes) / where.sum(axes).clamp_min(1)


def num_parameters(module: torch.nn.Module) -> int:
    """The number of trainable scalars."""
    return sum(math.prod(p.shape) for p in module.parameters() if p.requires_grad)
