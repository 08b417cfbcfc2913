"""How the network is told where objects are: what a position learns of those near it, or the clip
of all (arXiv:2509.16447).

Which encoder the paper has was not found; these are this project's own [OWN]. `map` and `tokens`
add a vector at each position and are local: no object further off than the map's cell, or than
`reach`, is in it. `vector` is the contrast: one vector a clip, that all positions are told.

Distances are in latent cells, across or down, whichever is more: the near ones lie in a square, as
a window of attention is one. All of these are sums over objects, so neither their order matters nor
rows that are not given.
"""

from typing import Annotated, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vidcomp.config import Settings, UserError
from vidcomp.nn.embeddings import FourierEmbedding
from vidcomp.types import Grid
from vidcomp.world.locations import NUM_CHANNELS, Kind, Locations, Per, heat_map, in_cells, shown

MOST_ATTRIBUTES = 16
"""Room for the numbers that tell an object's looks; how many there are is up to the dataset."""

_PAIR_WIDTH = 64
_HEADS = 4
_TURNS = 16.0
"""Of the fastest wave of a Fourier embedding while the slowest one turns once: over so many cells
of an offset, over the frame for a point of the pooled vector."""


class LocationsConfig(Settings):
    """`encode`: ``map`` (a heat map, `map` and `sigma`, through a linear layer at each position),
    ``tokens`` (each position attends to the objects within `reach`) or ``vector``.

    `per`: each latent frame shows its own places, or all show those of the first frame. `reach`: of
    tokens, or of a gaussian map; null is without end. `tell`: what is said of an object beside its
    place.
    """

    encode: Literal["map", "tokens", "vector"] = "map"
    map: Kind = "offset"
    sigma: PositiveFloat = 1.0
    per: Per = "frame"
    reach: Annotated[float | None, Field(ge=0)] = None
    tell: tuple[Literal["velocity", "attributes"], ...] = ()

    @model_validator(mode="after")
    def _reach_is_of_something(self) -> "LocationsConfig":
        gaussian = self.encode == "map" and self.map == "gaussian"
        if self.reach is not None and not gaussian and self.encode != "tokens":
            what = "map of a cell" if self.encode == "map" else "vector"
            raise ValueError(
                f"locations.reach={self.reach:g}: a {what} has no reach; drop it, or set "
                "encode=tokens or map=gaussian"
            )
        return self

    @property
    def num_numbers(self) -> int:
        """How many numbers `tell` adds to an object's place."""
        return 2 * ("velocity" in self.tell) + MOST_ATTRIBUTES * ("attributes" in self.tell)

    def global_paths(self, *, in_time: bool) -> list[str]:
        """The settings by which a position is told of what is far away, each with the way out."""
        ways: list[str] = []
        if self.encode == "vector":
            ways.append("conditioning.locations.encode=vector (set map or tokens)")
        elif self.reach is None and self.encode == "tokens":
            ways.append("conditioning.locations.reach=null for tokens (set it, in latent cells)")
        elif self.reach is None and self.map == "gaussian":
            ways.append("conditioning.locations.reach=null for map=gaussian (set it)")
        if in_time and self.per == "clip":
            ways.append(
                "conditioning.locations.per=clip tells later frames of the first (set frame)"
            )
        return ways


class LocationEmbedding(nn.Module):
    """At every position, or for encode=vector of the clip: a sum over the objects that are given.

    A clip that is not told of places at all has a learned vector instead, everywhere the same:
    that is another thing than to be told that there is nothing.
    """

    def __init__(self, config: LocationsConfig, width: int) -> None:
        super().__init__()
        encoders = {"map": _Map, "tokens": _Tokens, "vector": _Vector}
        self.encoder = encoders[config.encode](config, width)
        self.null = nn.Parameter(0.02 * torch.randn(width))

    def forward(
        self, locations: Locations, located: Bool[Tensor, " b"], grid: Grid
    ) -> Float[Tensor, "b *place c"]:
        told = self.encoder(locations, grid)
        where = located.reshape(-1, *[1] * (told.ndim - 1))
        return torch.where(where, told, self.null.to(told.dtype))


class _Map(nn.Module):
    """Without a bias: where no object is shown, nothing is added."""

    def __init__(self, config: LocationsConfig, width: int) -> None:
        super().__init__()
        self.config = config
        channels = NUM_CHANNELS[config.map] + config.num_numbers
        self.linear = nn.Linear(channels, width, bias=False)

    def forward(self, locations: Locations, grid: Grid) -> Float[Tensor, "b T H W c"]:
        maps = heat_map(
            locations,
            grid,
            kind=self.config.map,
            sigma=self.config.sigma,
            reach=self.config.reach,
            per=self.config.per,
            carry=_numbers(locations, grid, self.config),
        )
        return self.linear(maps)


class _Tokens(nn.Module):
    """Attention with a learned query: a position holds nothing yet that could ask. Keys and values
    are made of the offset from the position to the object, and of what is told of it.

    One more seat, nobody's, is within everyone's reach: where no object is, it alone is attended
    to. Objects out of reach have weight zero, exactly, and so have the gradients.
    """

    def __init__(self, config: LocationsConfig, width: int) -> None:
        super().__init__()
        self.config = config
        size = 2 + config.num_numbers
        self.of_pair = FourierEmbedding(size, _PAIR_WIDTH, max_frequency=_TURNS)
        self.nobody = nn.Parameter(torch.randn(_PAIR_WIDTH))
        self.score = nn.Linear(_PAIR_WIDTH, _HEADS, bias=False)
        self.out = nn.Linear(_PAIR_WIDTH, width, bias=False)

    def forward(self, locations: Locations, grid: Grid) -> Float[Tensor, "b T H W c"]:
        points = in_cells(locations, grid, per=self.config.per)  # b s n 2
        columns, rows = (torch.arange(size, device=points.device) for size in (grid.w, grid.h))
        cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # H W 2
        offset = points[:, :, None, None] - cells[:, :, None]  # b s H W n 2
        near = locations.given[:, None, None, None].expand(offset.shape[:-1])
        if self.config.reach is not None:
            near = near & (offset.abs().amax(-1) <= self.config.reach)

        told = [offset / _TURNS]
        if (numbers := _numbers(locations, grid, self.config)) is not None:
            told.append(numbers[:, :, None, None].expand(*offset.shape[:-1], -1))
        pairs = self.of_pair(torch.cat(told, dim=-1).flatten(0, -2)).unflatten(0, near.shape)
        nobody = self.nobody.to(pairs.dtype).expand(*near.shape[:-1], 1, -1)
        seats = torch.cat([pairs, nobody], dim=-2)  # b s H W n+1 p
        taken = F.pad(near, (0, 1), value=True)[..., None]
        weights = self.score(seats).masked_fill(~taken, -torch.inf).softmax(-2)
        values = rearrange(seats, "b s H W n (head d) -> b s H W n head d", head=_HEADS)
        mixed = (weights[..., None] * values).sum(-3).flatten(-2)  # b s H W p
        return self.out(mixed).expand(-1, grid.t, -1, -1, -1)


class _Vector(nn.Module):
    """The sum over objects, and the mean over latent frames, of an MLP of (x, y, time)."""

    def __init__(self, config: LocationsConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.of_object = FourierEmbedding(3 + config.num_numbers, width, max_frequency=_TURNS)

    def forward(self, locations: Locations, grid: Grid) -> Float[Tensor, "b c"]:
        cells = in_cells(locations, grid, per=self.config.per)  # b s n 2
        points = (cells + 0.5) / torch.tensor([grid.w, grid.h], device=cells.device)
        time = torch.arange(cells.shape[1], device=cells.device) / cells.shape[1]
        told = [points, time[:, None, None].expand(*cells.shape[:-1], 1)]
        if (numbers := _numbers(locations, grid, self.config)) is not None:
            told.append(numbers)
        each = self.of_object(torch.cat(told, dim=-1).flatten(0, -2)).unflatten(0, cells.shape[:-1])
        return each.where(locations.given[:, None, :, None], 0.0).sum(2).mean(1)


def _numbers(
    locations: Locations, grid: Grid, config: LocationsConfig
) -> Float[Tensor, "b s n e"] | None:
    """What `config.tell` adds to the places: velocities in cells per frame, then attributes."""
    if not config.tell:
        return None
    given = locations.given[:, None, :, None]
    told: list[Tensor] = []
    velocities = shown(locations.velocities, grid, per=config.per)
    if "velocity" in config.tell:
        told.append(velocities * torch.tensor([grid.w, grid.h], device=velocities.device))
    if "attributes" in config.tell:
        more = MOST_ATTRIBUTES - (a := locations.attributes.shape[-1])
        if not 0 < a <= MOST_ATTRIBUTES:
            raise UserError(
                f"locations.tell=[attributes]: these objects have {a}; legal: 1 to "
                f"{MOST_ATTRIBUTES}; or drop attributes from locations.tell"
            )
        looks = F.pad(locations.attributes, (0, more))[:, None]
        told.append(looks.expand(-1, velocities.shape[1], -1, -1))
    return torch.cat(told, dim=-1).where(given, 0.0)
