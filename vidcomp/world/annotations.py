"""What the annotations of published videos become: factors with a class for each clip, contacts,
the truth of a batch."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.truth import Truth


class Column(NamedTuple):
    """A factor, and the class id of each clip."""

    factor: Factor
    ids: Sequence[int]


class Collision(NamedTuple):
    """Objects `i` and `j` meet at `frame` of the file, which may lie between two frames. An index
    that is no object's (-1 in Kubric's files, 65535 in their TFDS form) is the floor or a wall."""

    i: int
    j: int
    frame: float


def counted(name: str, counts: Sequence[int], legal: range | None = None) -> Column:
    """How many: an ordinal factor of the `legal` numbers, by default those between the least and
    the most that occur."""
    legal = legal or range(min(counts), max(counts) + 1)
    classes = tuple(FactorClass(str(k), (float(k),), (0.0,)) for k in legal)
    ids = [legal.index(k) for k in counts]
    return Column(Factor(name, classes, "object", kind="ordinal"), ids)


def happens(name: str, events: Sequence[bool]) -> Column:
    """Whether something happens in the clip: temporal, for one frame does not tell."""
    classes = (FactorClass("none"), FactorClass("some"))
    return Column(Factor(name, classes, temporal=True), [int(event) for event in events])


def labelled(*columns: Column) -> tuple[Factors, Int64[Tensor, "n f"]]:
    """The factors of a dataset and the class ids of its clips."""
    ids = [torch.tensor(column.ids, dtype=torch.int64) for column in columns]
    return Factors(tuple(column.factor for column in columns)), torch.stack(ids, dim=1)


def contacts(
    collisions: Iterable[Collision], num_objects: int, frames: Sequence[int]
) -> Bool[Tensor, "t n n+1"]:
    """As `Truth.contacts` has them, of a clip that shows these evenly spaced `frames` of its file.
    A collision belongs to the first frame that is not before it."""
    n = num_objects
    step = frames[1] - frames[0] if len(frames) > 1 else 1
    out = torch.zeros(len(frames), n, n + 1, dtype=torch.bool)
    for i, j, frame in collisions:
        t = math.ceil((frame - frames[0]) / step)
        if not 0 <= t < len(frames):
            continue
        a, b = (k if 0 <= k < n else n for k in (i, j))
        if a < n:
            out[t, a, b] = True
        if b < n:
            out[t, b, a] = True
    return out


def truth_of_each(
    read: Callable[[int], Truth], indices: Int64[Tensor, " b"], *, num_objects: int
) -> Truth:
    """The truth of clips that are read one by one; in any batch with room for `num_objects`."""
    each = [read(i) for i in indices.tolist() or [0]]  # any clip tells what is known of no clips
    return Truth.cat(each).padded(num_objects)[: len(indices)]
