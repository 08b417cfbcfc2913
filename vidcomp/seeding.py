"""Randomness as a pure function of (seed, purpose, step, index of the sample).

A counter-based generator written in integer tensor operations: no state, no rank, no device in it.
So a resumed run is the same command again, N processes draw what one draws, clip i has the same
parameters in any batch, and CPU and CUDA agree bit for bit on every integer and uniform draw.

The mixer is SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195): element j of the
stream with key x is ``mix(x + (j + 1) * GAMMA)``.

Unusual: as in JAX, the same `Rng` asked twice answers the same. Different draws come from different
streams, by name: ``rng.fold("mask").uniform(16)``.
"""

import contextlib
import functools
import hashlib
import math
from collections.abc import Generator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def _signed(x: int) -> int:
    """The int64 with the same bits as the uint64 `x`: torch has no uint64 arithmetic."""
    return x - (1 << 64) if x >= 1 << 63 else x


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


@dataclass(frozen=True)
class Rng:
    """One stream of draws for each sample of a batch.

    In training there is a second one, `of_batch`, which all samples of a global batch share.
    """

    keys: Int64[Tensor, " b"]
    batch_keys: Int64[Tensor, " b"] | None = None

    @classmethod
    def make(cls, seed: int, purpose: str, index: Int64[Tensor, " b"], *, step: int = 0) -> "Rng":
        """Streams for the samples with global indices `index`, on the device of `index`."""
        return Rng(_mix(index * _GAMMA + _key(f"{seed}/{purpose}/{step}")))

    def fold(self, purpose: str | int) -> "Rng":
        """An independent stream for each sample, named `purpose`."""
        name = _key(str(purpose))
        shared = None if self.batch_keys is None else _mix(self.batch_keys ^ name)
        return Rng(_mix(self.keys ^ name), shared)

    def sharing(self, batch: "Rng") -> "Rng":
        """The same streams, beside those of `batch` that whole batches share."""
        return Rng(self.keys, batch.keys)

    def of_batch(self) -> "Rng":
        """The stream that the samples of a batch share; outside training, each sample's own."""
        return self if self.batch_keys is None else Rng(self.batch_keys)

    def __getitem__(self, rows: "Tensor | slice") -> "Rng":
        return Rng(self.keys[rows], None if self.batch_keys is None else self.batch_keys[rows])

    def __len__(self) -> int:
        return len(self.keys)

    def uniform(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Uniform on (0, 1), on a grid of 2^-23: never 0, never 1."""
        count = math.prod(shape)
        counter = torch.arange(1, count + 1, device=self.keys.device) * _GAMMA
        bits = _mix(self.keys[:, None] + counter)
        top = _shift(bits, 41)  # 23 bits: with the half they fill a float32, none is rounded to 1
        return ((top.float() + 0.5) * 2.0**-23).reshape(len(self.keys), *shape)

    def normal(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Standard normal, by Box and Muller."""
        radius = (-2 * self.fold("radius").uniform(*shape).log()).sqrt()
        return radius * (2 * math.pi * self.fold("angle").uniform(*shape)).cos()

    def gumbel(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Standard Gumbel."""
        return -(-self.uniform(*shape).log()).log()

    def integers(self, high: int, *shape: int) -> Int64[Tensor, "b ..."]:
        """Uniform integers in [0, high), for `high` far below 2^23."""
        return (self.uniform(*shape) * high).long().clamp_max(high - 1)

    def bernoulli(self, p: float, *shape: int) -> Bool[Tensor, "b ..."]:
        """True with probability `p`."""
        return self.uniform(*shape) < p

    def categorical(self, probabilities: Float[Tensor, "b *n k"]) -> Int64[Tensor, "b *n"]:
        """One class for each distribution along the last axis, by inverting its cumulative sum."""
        cdf = probabilities.double().cumsum(-1)
        u = self.uniform(*probabilities.shape[1:-1])[..., None] * cdf[..., -1:]
        return (cdf <= u).sum(-1).clamp_max(probabilities.shape[-1] - 1)


@functools.lru_cache(maxsize=32)  # two for each portion of a mixture
def permutation(seed: int, purpose: str, size: int) -> Int64[Tensor, " n"]:
    """A permutation of ``range(size)``, a pure function. It is remembered: never write to it."""
    keys = Rng.make(seed, purpose, torch.arange(size)).keys
    return keys.argsort(stable=True)


def stream_indices(seed: int, size: int, start: int, count: int) -> Int64[Tensor, " count"]:
    """Items `start` .. `start + count` of the endless stream of shuffled copies of ``range(size)``.

    A pure function, so any process can start anywhere: this is the whole of the data order.
    """
    position = torch.arange(start, start + count)
    out = torch.empty_like(position)
    for epoch in range(start // size, (start + count - 1) // size + 1):
        here = position // size == epoch
        out[here] = permutation(seed, f"epoch {epoch}", size)[position[here] % size]
    return out


@contextlib.contextmanager
def initial_weights(seed: int) -> Generator[None, None, None]:
    """Modules built inside get the same weights for the same `seed`, whatever was drawn before.

    torch's own initialisers draw from its global generator: this is the only place that seeds it,
    and it puts the generator back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _key(text: str) -> int:
    return _signed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)
