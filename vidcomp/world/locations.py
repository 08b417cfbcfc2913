"""Locations: where the objects of a clip are, as what a generator is told (arXiv:2509.16447).

The second paper conditions on the places of all objects, or of one of them drawn at random. The
places are a padded set of points, and `given` says which of them the generator is told, so the same
record holds what was asked and where the others are. `heat_map` draws the points that are given on
the latent grid.

The subsets and the kinds of heat map are this project's own: the paper's were not found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vidcomp.config import UserError
from vidcomp.seeding import Rng
from vidcomp.types import Grid
from vidcomp.world.truth import Truth

Label = Literal["all", "one", "subset"]
Kind = Literal["multi_hot", "offset", "gaussian"]

NUM_CHANNELS: dict[Kind, int] = {"multi_hot": 1, "offset": 3, "gaussian": 1}


@dataclass(frozen=True)
class Locations:
    """`n` objects a clip, padded.

    Points are (x, y) in fractions of the frame's width and height, y down: (0, 0) and (1, 1) are
    corners of the frame. Velocities are in these fractions per frame. `attributes` are numbers that
    tell an object's looks; which ones is up to the dataset.
    """

    points: Float[Tensor, "b t n 2"]
    velocities: Float[Tensor, "b t n 2"]
    attributes: Float[Tensor, "b n a"]
    present: Bool[Tensor, "b n"]
    given: Bool[Tensor, "b n"]

    @classmethod
    def of_truth(cls, truth: Truth, *, height: int, width: int) -> "Locations":
        """Of a truth that says which objects are labelled. What is absent or clutter is nobody's to
        ask for, and zero."""
        assert truth.labelled is not None, "this truth does not say what a generator is told"
        present = truth.present if truth.clutter is None else truth.present & ~truth.clutter
        looks = truth.attributes
        if looks is None:
            looks = truth.positions_px.new_zeros(*present.shape, 0)
        size = torch.tensor([width, height], device=present.device)
        points, known = (truth.positions_px + 0.5) / size, truth.velocities_px
        velocities = torch.zeros_like(points) if known is None else known / size
        there = present[:, None, :, None]
        return cls(
            points=points.where(there, 0.0),
            velocities=velocities.where(there, 0.0),
            attributes=looks.where(present[..., None], 0.0),
            present=present,
            given=truth.labelled & present,
        )

    @classmethod
    def at(cls, points: Sequence[Sequence[tuple[float, float]]]) -> "Locations":
        """Of stills, a list of points for each, all given. Raises UserError for points outside."""
        b, n = len(points), max((len(row) for row in points), default=0)
        padded = torch.zeros(b, 1, n, 2)
        given = torch.zeros(b, n, dtype=torch.bool)
        for k, row in enumerate(points):
            padded[k, 0, : len(row)] = torch.tensor(row).reshape(-1, 2)
            given[k, : len(row)] = True
        locations = cls(padded, torch.zeros_like(padded), torch.zeros(b, n, 0), given, given)
        locations.refuse_outside()
        return locations

    def all_given(self) -> "Locations":
        """The same, and the generator is told of every object: what it is tested with."""
        return replace(self, given=self.present)

    def refuse_outside(self) -> None:
        """Raise UserError if a point that is given lies outside the frame."""
        inside = ((self.points >= 0) & (self.points <= 1)).all(-1)  # not so for NaN
        outside = ~inside & self.given[:, None]
        if outside.any():
            b, t, n = outside.nonzero()[0].tolist()
            x, y = self.points[b, t, n].tolist()
            raise UserError(
                f"object {n} of clip {b} is asked for at ({x:.3g}, {y:.3g}), outside the frame; "
                "legal: fractions of its width and height, 0 to 1"
            )

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: "Tensor | slice") -> "Locations":
        return Locations(**{name: x[rows] for name, x in self._tensors().items()})

    def to(self, device: "torch.device | str") -> "Locations":
        return Locations(**{name: x.to(device) for name, x in self._tensors().items()})

    def padded(self, n: int) -> "Locations":
        """The same with room for `n` objects; the new ones are not present, and zero."""
        more = n - self.present.shape[1]
        assert more >= 0, f"{self.present.shape[1]} objects do not fit {n} rows"
        return Locations(
            points=F.pad(self.points, (0, 0, 0, more)),
            velocities=F.pad(self.velocities, (0, 0, 0, more)),
            attributes=F.pad(self.attributes, (0, 0, 0, more)),
            present=F.pad(self.present, (0, more)),
            given=F.pad(self.given, (0, more)),
        )

    @classmethod
    def cat(cls, parts: Sequence["Locations"]) -> "Locations":
        """One batch after the other, with room for the most objects."""
        n = max(part.present.shape[1] for part in parts)
        tensors = [part.padded(n)._tensors() for part in parts]
        return Locations(**{name: torch.cat([x[name] for x in tensors]) for name in tensors[0]})

    def _tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def choose_given(present: Bool[Tensor, "b n"], label: Label, rng: Rng) -> Bool[Tensor, "b n"]:
    """Of which objects a generator is told: all, one of them, or a random subset.

    A subset is not empty, unless there is no object: its size is drawn first, from one to all.
    Nothing but the draw decides, so the choice tells nothing of places or looks.
    """
    count = present.sum(1)
    match label:
        case "all":
            size = count
        case "one":
            size = count.clamp_max(1)
        case "subset":
            size = (rng.fold("size").uniform() * count).ceil().long()
    keys = rng.fold("which").uniform(present.shape[1]).masked_fill(~present, torch.inf)
    rank = keys.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return rank < size[:, None]


def heat_map(
    locations: Locations,
    grid: Grid,
    *,
    kind: Kind,
    sigma: float = 1.0,
    per: Literal["clip", "frame"] = "frame",
) -> Float[Tensor, "b T H W m"]:
    """The points that are given, on the latent grid; maps of several objects add up.

    kind=multi_hot: 1 in the cell that a point lies in, and no word of where in it. A generator that
    does just as it is told, with cells of 4 pixels, is within 2.5 pixels of the point in 65 % of
    cases; so objects should be two cells wide or more.
    kind=offset: beside it, how far the point lies to the right of the cell's middle and below it,
    in cells.
    kind=gaussian: exp(-d^2 / (2 sigma^2)), where d is the distance from the cell's middle in cells.

    per=frame: a latent frame shows the last of its frames; per=clip: all show the first frame.
    """
    if sigma <= 0:
        raise UserError(f"sigma={sigma} is no width of a heat map; legal: above 0, in cells")
    locations.refuse_outside()
    points = locations.points.where(locations.given[:, None, :, None], 0.0)  # others may be NaN
    shown = _shown_frames(points, grid) if per == "frame" else points[:, :1]
    across = shown[..., 0] * grid.w - 0.5  # b T n: in cells, from the middle of the first one
    down = shown[..., 1] * grid.h - 0.5
    width = sigma if kind == "gaussian" else None
    columns, rows = _profile(across, grid.w, width), _profile(down, grid.h, width)
    told = locations.given[:, None].expand_as(across).float()[..., None]  # b T n 1
    if kind == "offset":
        off = [x - _cell(x, size) for x, size in ((across, grid.w), (down, grid.h))]
        told = told * torch.stack([torch.ones_like(across), *off], dim=-1)
    maps = einsum(columns, rows, told, "b T n W, b T n H, b T n m -> b T H W m")
    return maps.expand(-1, grid.t, -1, -1, -1)


def _shown_frames(points: Float[Tensor, "b t n 2"], grid: Grid) -> Float[Tensor, "b T n 2"]:
    """Latent frame k of a causal tokenizer of stride s ends with frame k s."""
    num_frames, steps = points.shape[1], grid.t - 1
    stride = (num_frames - 1) // max(steps, 1)
    if stride * steps != num_frames - 1 or (steps and not stride):
        raise UserError(
            f"locations in {num_frames} frames do not fit {grid.t} latent frames; legal: "
            f"1 + {steps} k frames, or per=clip"
        )
    return points[:, :: max(stride, 1)]


def _cell(x: Float[Tensor, "*n"], size: int) -> Float[Tensor, "*n"]:
    """The cell that a point lies in; the frame's right and lower edges belong to the last one."""
    return (x + 0.5).floor().clamp_max(size - 1)


def _profile(x: Float[Tensor, "b T n"], size: int, sigma: float | None) -> Float[Tensor, "b T n s"]:
    """A heat map is the product of one along the rows and one along the columns."""
    cells = torch.arange(size, device=x.device)
    if sigma is None:
        return (cells == _cell(x, size)[..., None]).float()
    return torch.exp(-(cells - x[..., None]).square() / (2 * sigma**2))
