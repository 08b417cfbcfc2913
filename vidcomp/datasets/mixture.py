"""Several datasets as one: images beside clips, each with a weight.

    parts:
      - {dataset: {name: folder, path: pictures, num_frames: 1, height: 64, width: 64}, weight: 0.3}
      - {dataset: {name: folder, path: videos, num_frames: 17, height: 64, width: 64}, weight: 0.7}

Parts have one height, width and frame rate, but may differ in length. A training step takes its
batch from the parts of one length, which is chosen by weight, as are the clips within it
(`training.order`). What is scored and sampled has the length of the longest part.

The factors are those that all parts share to the last class; a clip whose part does not know a
factor could be labelled with anything. A temporal factor goes as well if a part has images: those
would teach that one frame shows it. Without any shared factor, the mixture is unconditional.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float, Int64
from pydantic import BeforeValidator, Field, PositiveFloat, SerializeAsAny
from torch import Tensor

from vidcomp.config import Settings, UserError
from vidcomp.datasets import base
from vidcomp.datasets.base import DATASETS, Clips, Portion
from vidcomp.seeding import Rng
from vidcomp.world.factors import Factors
from vidcomp.world.locations import Locations
from vidcomp.world.truth import Truth, shared_names


class Part(Settings):
    """A dataset, and how often training draws from it, relative to the other parts."""

    dataset: Annotated[SerializeAsAny[base.Config], BeforeValidator(DATASETS.config)]
    weight: PositiveFloat = 1.0


class Config(base.Config):
    """The parts, each in its own words."""

    parts: tuple[Part, ...] = Field(min_length=1)

    def build(self) -> "Dataset":
        parts = [part.dataset.build() for part in self.parts]
        shared = shared_factors(parts)
        if shared.dropped:
            dropped = ", ".join(f"{name} ({why})" for name, why in shared.dropped.items())
            kept = ", ".join(shared.factors.names) or "none, so it is unconditional"
            print(f"mixture: factors dropped: {dropped}; kept: {kept}")
        return Dataset(parts, [part.weight for part in self.parts], shared.factors)


class Dataset(base.Dataset):
    """The clips of all parts, one part after the other."""

    def __init__(
        self, parts: Sequence[base.Dataset], weights: Sequence[float], factors: Factors
    ) -> None:
        refuse_other_sizes(parts)
        self.parts, self.weights, self.factors = tuple(parts), tuple(weights), factors
        lengths = [part.num_frames for part in parts]
        self._longest = lengths.index(max(lengths))
        self.num_frames, self.fps = lengths[self._longest], parts[self._longest].fps
        self.height, self.width = parts[0].height, parts[0].width
        self.is_random = any(part.is_random for part in parts)
        self._columns = [[p.factors.names.index(name) for name in factors.names] for p in parts]
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self._lengths = torch.empty(len(self), dtype=torch.int64)
        for portion in self.portions():
            self._lengths[portion.rows] = portion.num_frames

    def __len__(self) -> int:
        return int(self._ends[-1])

    def classes(self) -> Int64[Tensor, "n f"]:
        pairs = zip(self.parts, self._columns, strict=True)
        return torch.cat([part.classes()[:, columns] for part, columns in pairs])

    def values(self) -> Float[Tensor, "n f v"]:
        pairs = zip(self.parts, self._columns, strict=True)
        v = self.factors.value_size
        return torch.cat([part.values()[:, columns, :v] for part, columns in pairs])

    def clips(self, indices: Int64[Tensor, " b"]) -> Clips:
        return self._gathered(indices, lambda part, rows, _: part.clips(rows))

    def draw(self, indices: Int64[Tensor, " b"], rng: Rng) -> Clips:
        return self._gathered(indices, lambda part, rows, places: part.draw(rows, rng[places]))

    def truth(self, indices: Int64[Tensor, " b"]) -> Truth | None:
        """What all parts know, with room for the most objects of any: the same in any batch."""
        firsts = self._first_truths
        names = shared_names(firsts) if firsts else set[str]()
        places: list[Tensor] = []
        truths: list[Truth] = []
        for k, of_part, rows in self._shared_out(indices):
            truth = self.parts[k].truth(rows)
            if truth is None or not names:
                return None
            known = truth.padded(max(first.present.shape[1] for first in firsts)).tensors()
            truths.append(Truth(**{name: known[name] for name in names}))
            places.append(of_part)
        return Truth.cat(truths)[torch.cat(places).argsort()]

    @property
    def decoders(self) -> dict[str, int]:
        return dict(sum((Counter(part.decoders) for part in self.parts), Counter[str]()))

    def groups(self) -> Int64[Tensor, " n"]:
        """The parts' own, without telling parts apart: of a file that two parts read, images here
        and clips there, in whatever order, all is kept for scoring or nothing, since its group is
        its content; and what a part alone keeps for scoring, the mixture keeps too."""
        return torch.cat([part.groups() for part in self.parts])

    def portions(self) -> tuple[Portion, ...]:
        """Those of the parts, which may be mixtures themselves."""
        found: list[Portion] = []
        starts = self._ends.roll(1)
        starts[0] = 0
        for part, weight, start in zip(self.parts, self.weights, starts, strict=True):
            inside = part.portions()
            whole = sum(portion.weight for portion in inside)
            found += [
                Portion(p.rows + start, weight * p.weight / whole, p.num_frames) for p in inside
            ]
        return tuple(found)

    @property
    def fingerprint(self) -> str:
        text = json.dumps([[part.fingerprint for part in self.parts], self.factors.to_json()])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @functools.cached_property
    def _first_truths(self) -> list[Truth]:
        """Of the first clip of each part, empty if it is not known of all."""
        firsts = [part.truth(torch.tensor([0])) for part in self.parts]
        known = [first for first in firsts if first is not None]
        return known if len(known) == len(firsts) else []

    @functools.cached_property
    def _most_located(self) -> int | None:
        """The most objects that any part has locations for; None unless all parts have them, and
        tell as much of an object's looks."""
        firsts = [part.clips(torch.tensor([0])).locations for part in self.parts]
        known = [first for first in firsts if first is not None]
        if len(known) < len(firsts) or len({first.attributes.shape[2] for first in known}) > 1:
            return None
        return max(first.present.shape[1] for first in known)

    def _shared_out(self, indices: Int64[Tensor, " b"]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each part that is asked for something: its number, where in `indices`, and its rows. No
        clips are asked of the longest part. Raises UserError unless the clips are of one length."""
        self.check_indices(indices)
        lengths = self._lengths[indices].unique().tolist()
        if len(lengths) > 1:
            raise UserError(
                f"clips of {' and '.join(map(str, lengths))} frames do not go into one batch: ask "
                "for clips of one length, or store the parts of the mixture each on their own"
            )
        part_of = torch.searchsorted(self._ends, indices, right=True)
        for k in part_of.unique().tolist() or [self._longest]:
            places = torch.nonzero(part_of == k)[:, 0]
            start = int(self._ends[k]) - len(self.parts[k])
            yield k, places, indices[places] - start

    def _gathered(
        self,
        indices: Int64[Tensor, " b"],
        read: Callable[[base.Dataset, Tensor, Tensor], Clips],
    ) -> Clips:
        """What `read` gives for the rows of each part, in the order of `indices`."""
        found: list[Clips] = []
        order: list[Tensor] = []
        for k, places, rows in self._shared_out(indices):
            clips = read(self.parts[k], rows, places)
            columns, v = self._columns[k], self.factors.value_size
            values = clips.values[:, columns, :v]
            found.append(replace(clips, classes=clips.classes[:, columns], values=values))
            order.append(places)
        back = torch.cat(order).argsort()
        return Clips(
            torch.cat([clips.frames for clips in found])[back],
            torch.cat([clips.classes for clips in found])[back],
            torch.cat([clips.values for clips in found])[back],
            self._located([clips.locations for clips in found], back),
        )

    def _located(
        self, found: Sequence[Locations | None], back: Int64[Tensor, " b"]
    ) -> Locations | None:
        known = [locations for locations in found if locations is not None]
        if len(known) < len(found) or self._most_located is None:
            return None
        return Locations.cat([part.padded(self._most_located) for part in known])[back]


class Shared(NamedTuple):
    """The factors of a mixture, and why it has not the others, by name."""

    factors: Factors
    dropped: dict[str, str]


def shared_factors(parts: Sequence[base.Dataset]) -> Shared:
    """In the order of the first part."""
    shortest = min(portion.num_frames for part in parts for portion in part.portions())
    dropped: dict[str, str] = {}
    for factor in (factor for part in parts for factor in part.factors.items):
        if not all(factor.name in part.factors.names for part in parts):
            dropped[factor.name] = "not every part has it"
        elif not all(factor in part.factors.items for part in parts):
            dropped[factor.name] = "its classes are not the same in every part"
        elif factor.min_frames > shortest:
            dropped[factor.name] = "an image cannot show it"
    kept = tuple(factor for factor in parts[0].factors.items if factor.name not in dropped)
    return Shared(Factors(kept), dropped)


def refuse_other_sizes(parts: Sequence[base.Dataset]) -> None:
    """Raise UserError unless all parts have one height and width, and all with motion one fps."""
    sizes = list(dict.fromkeys(f"{part.height}x{part.width}" for part in parts))
    if len(sizes) > 1:
        raise UserError(
            f"the parts of a mixture are {' and '.join(sizes)}, and must have one height and "
            "width: set both in each part"
        )
    intervals = [part.num_frames - 1 for part in parts]  # between frames: what a rate is about
    rates = sorted({part.fps for part, num in zip(parts, intervals, strict=True) if num})
    if rates and rates[-1] > 1.01 * rates[0]:  # 29.97 beside 30 is no other motion
        raise UserError(
            f"the parts of a mixture have {' and '.join(f'{rate:g}' for rate in rates)} frames per "
            "second, and must have one rate: set fps where clips are drawn, or temporal_stride "
            "where they are read"
        )
