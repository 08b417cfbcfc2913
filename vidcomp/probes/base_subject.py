"""What a probe looks at: clips from several sources, and, for those that ask for more, the inside
of the generator and a feature space.

Both are protocols here and classes in `vidcomp.evaluation`: a probe knows neither how a generator
is loaded nor which network makes the features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.types import Video
from vidcomp.world.locations import Locations
from vidcomp.world.splits import Split, level_name


@dataclass(frozen=True)
class ClipSet:
    """Clips of one source, with what each shows, or was asked to show: its classes and, inside
    them, its values; and the places of its objects, where a generator can be told of them."""

    video: Video
    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]
    locations: Locations | None = None

    def __getitem__(self, rows: Tensor | slice) -> "ClipSet":
        locations = None if self.locations is None else self.locations[rows]
        return ClipSet(self.video[rows], self.classes[rows], self.values[rows], locations)


@runtime_checkable
class Model(Protocol):
    """The inside of a generator while it looks at clips: hidden or noised up to `level`, from
    nothing left (0) to clean (1), and `told` the factors or not. Layers are its blocks, in order;
    what stands at many positions is averaged over them."""

    def hidden(self, clips: ClipSet, level: float, *, told: bool) -> Float[Tensor, "b layers c"]:
        """The hidden states after each layer."""
        ...

    def hidden_told(
        self, clips: ClipSet, level: float, factors: Sequence[int], *, pooled: bool = True
    ) -> Float[Tensor, "b layers c"]:
        """The same of a network that is told `factors` and nothing else; not `pooled`, those of all
        positions, one after the other."""
        ...

    def heads(self, clips: ClipSet, level: float, *, told: bool) -> Float[Tensor, "b layers h d"]:
        """What each attention head writes, before the heads are mixed."""
        ...

    def influence(self, clips: ClipSet, level: float, *, told: bool) -> Float[Tensor, "b layers n"]:
        """How much the hidden units of each MLP add to the quality of the prediction of the clip,
        to first order: the sum over positions of activation x gradient."""
        ...

    def untrained(self) -> "Model":
        """The same network knowing nothing."""
        ...


@dataclass(frozen=True)
class Points:
    """Clips as points of a feature space. Not `distinct` are those that repeat an earlier clip,
    pixel by pixel."""

    features: Float[Tensor, "b d"]
    classes: Int64[Tensor, "b f"]
    distinct: Bool[Tensor, " b"]


@runtime_checkable
class Space(Protocol):
    """A feature space: in it, clips that are alike lie close together."""

    def points(self, source: str) -> Float[Tensor, "b d"]:
        """The clips of that source."""
        ...

    def training(self) -> Points:
        """All clips that the generator may have learned from, with the look of its samples."""
        ...


@dataclass(frozen=True)
class Subject:
    """What a probe is asked about. `sets` has keys among ``real``, ``reconstruction``, ``samples``
    and ``prototype``, real clips with the prototypes' values; row i of ``reconstruction`` is row i
    of ``real``. `model` is given to who looks inside, `space` to who asks how alike clips are;
    `latents`, of what the model may have learned from, are made for who asks."""

    sets: Mapping[str, ClipSet]
    split: Split
    model: Model | None = None
    space: Space | None = None
    latents: Callable[[], Float[Tensor, "n T H W d"]] | None = None


def rows_by_level(split: Split, clips: ClipSet) -> dict[str, Bool[Tensor, " b"]]:
    """Which rows belong to each level that occurs among `clips`, from seen upwards."""
    levels = split.levels(clips.classes, clips.values)
    return {level_name(k): levels == k for k in sorted(set(levels.tolist()))}
