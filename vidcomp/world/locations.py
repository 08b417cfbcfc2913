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
Per = Literal["clip", "frame"]

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
        return Locations(**{name: x[rows] for name, x in self.tensors().items()})

    def to(self, device: "torch.device | str") -> "Locations":
        return Locations(**{name: x.to(device) for name, x in self.tensors().items()})

    def padded(self, n: int) -> "Locations":
        """The same with room for `n` objects; the new ones are not present, and zero."""
        more = n - self.present.shape[1]
        assert more >= 0, f"{self.present.shape[1]} objects do not fit {n} rows"
        if not more:
            return self
        return Locations(
            points=F.pad(self.points, (0, 0, 0, more)),
            velocities=F.pad(self.velocities, (0, 0, 0, more)),
            attributes=F.pad(self.attributes, (0, 0, 0, more)),
            present=F.pad(self.present, (0, more)),
            given=F.pad(self.given, (0, more)),
        )

    def frames(self, start: int, count: int) -> "Locations":
        """Of `count` frames from `start` on; beyond the last one, objects stand still."""
        last = self.points.shape[1] - 1
        kept = (start + torch.arange(count, device=self.points.device)).clamp_max(last)
        return replace(self, points=self.points[:, kept], velocities=self.velocities[:, kept])

    @classmethod
    def cat(cls, parts: Sequence["Locations"]) -> "Locations":
        """One batch after the other, with room for the most objects."""
        n = max(part.present.shape[1] for part in parts)
        tensors = [part.padded(n).tensors() for part in parts]
        return Locations(**{name: torch.cat([x[name] for x in tensors]) for name in tensors[0]})

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
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
    reach: float | None = None,
    per: Per = "frame",
    carry: Float[Tensor, "b s n e"] | None = None,
) -> Float[Tensor, "b T H W m"]:
    """The points that are given, on the latent grid; maps of several objects add up.

    kind=multi_hot: 1 in the cell that a point lies in, and no word of where in it. A generator that
    does just as it is told, with cells of 4 pixels, is within 2.5 pixels of the point in 65 % of
    cases; so objects should be two cells wide or more.
    kind=offset: beside it, how far the point lies to the right of the cell's middle and below it,
    in cells.
    kind=gaussian: exp(-d^2 / (2 sigma^2)), where d is the distance from the cell's middle in cells;
    0 where that is more than `reach` across or down.

    `carry`: further numbers of each object, in channels of their own, wherever it is shown.
    """
    if sigma <= 0:
        raise UserError(f"sigma={sigma} is no width of a heat map; legal: above 0, in cells")
    points = in_cells(locations, grid, per=per)
    across, down = points.unbind(-1)  # b s n
    width = sigma if kind == "gaussian" else None
    columns = _profile(across, grid.w, width, reach)
    rows = _profile(down, grid.h, width, reach)
    told = [torch.ones_like(across)[..., None]]
    if kind == "offset":
        told += [(x - _cell(x, size))[..., None] for x, size in ((across, grid.w), (down, grid.h))]
    told = torch.cat(told if carry is None else [*told, carry], dim=-1)  # b s n m
    told = told.where(locations.given[:, None, :, None], 0.0)
    maps = einsum(columns, rows, told, "b s n W, b s n H, b s n m -> b s H W m")
    return maps.expand(-1, grid.t, -1, -1, -1)


def in_cells(locations: Locations, grid: Grid, *, per: Per = "frame") -> Float[Tensor, "b s n 2"]:
    """Where the given points lie on the latent grid: how many cells to the right of the first one's
    middle, and how many below it. Raises UserError if one lies outside the frame."""
    locations.refuse_outside()
    points = locations.points.where(locations.given[:, None, :, None], 0.0)  # others may be NaN
    size = torch.tensor([grid.w, grid.h], device=points.device)
    return shown(points, grid, per=per) * size - 0.5


def shown(x: Float[Tensor, "b t n d"], grid: Grid, *, per: Per) -> Float[Tensor, "b s n d"]:
    """What latent frames show of what objects have in each frame.

    per=frame: latent frame k of a causal tokenizer of stride r shows the last of its frames, k r;
    s = T. per=clip: all show the first frame; s = 1.
    """
    if per == "clip":
        return x[:, :1]
    num_frames, steps = x.shape[1], grid.t - 1
    stride = (num_frames - 1) // max(steps, 1)
    if stride * steps != num_frames - 1 or (steps and not stride):
        raise UserError(
            f"locations in {num_frames} frames do not fit {grid.t} latent frames; legal: "
            f"1 + {steps} k frames, or per=clip"
        )
    return x[:, :: max(stride, 1)]


def _cell(x: Float[Tensor, "*n"], size: int) -> Float[Tensor, "*n"]:
    """The cell that a point lies in; the frame's right and lower edges belong to the last one."""
    return (x + 0.5).floor().clamp_max(size - 1)


def _profile(
    x: Float[Tensor, "b s n"], size: int, sigma: float | None, reach: float | None
) -> Float[Tensor, "b s n cells"]:
    """A heat map is the product of one along the rows and one along the columns."""
    cells = torch.arange(size, device=x.device)
    if sigma is None:
        return (cells == _cell(x, size)[..., None]).float()
    off = cells - x[..., None]
    heat = torch.exp(-off.square() / (2 * sigma**2))
    return heat if reach is None else heat.where(off.abs() <= reach, 0.0)
