"""Maps of what a denoiser's predictions depend on, and how far they extend. [OWN] See
`base_locality` for what is measured and for the letters."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.probes.base_locality import Belief, Probes, Scenes
from vidcomp.seeding import Rng
from vidcomp.types import Grid


@dataclass(frozen=True)
class Maps:
    """What the prediction at each probe depends on: G_i(j), and the same for objects."""

    positions: Float[Tensor, "b p N"]
    objects: Float[Tensor, "b p n"]


def gradient_maps(belief: Belief, probes: Probes, *, draws: int, rng: Rng) -> Maps:
    """|dD_i / dx_j| over all channels of both, and |dD_i / dpoint_k|: the root of the mean square
    over `draws` of random signs, each of which takes one pass back, or over all of D's channels if
    they are no more than that. (The mean length over draws would be too low.) Passes follow each
    other: in one batch, by is_grads_batched, each took 1.2 to 1.9 times as long on a CPU.

    Channels that are log-probabilities count by their probabilities, so that the square is the
    Fisher information of the codes: what Jensen-Shannon divergences are for small changes.
    """
    scenes = belief.scenes
    x, points = (part.detach().clone().requires_grad_() for part in (scenes.x, scenes.points))
    with torch.enable_grad():
        out = belief.of(x, points, scenes.given).flatten(1, 3)  # b N o
    signs = _directions(len(out), out.shape[-1], draws, rng).to(out)  # r b o
    rows = torch.arange(len(out), device=out.device)
    maps: list[tuple[Tensor, Tensor]] = []
    for at in probes.at.unbind(1):
        with torch.enable_grad():
            here = out[rows, at]  # b o
        weight = here.detach().exp().sqrt() if belief.codebooks else 1.0
        squares = [torch.zeros_like(x[..., 0]), torch.zeros_like(points[:, 0, :, 0])]
        for sign in signs:
            of_x, of_points = torch.autograd.grad(
                here, (x, points), weight * sign, retain_graph=True, materialize_grads=True
            )
            squares[0] += of_x.square().sum(-1)
            squares[1] += of_points.square().sum((1, 3))
        maps.append((squares[0].flatten(1).sqrt(), squares[1].sqrt()))
    positions, objects = (torch.stack(parts, dim=1) for parts in zip(*maps, strict=True))
    return Maps(positions, objects * scenes.given[:, None])


def perturbed_maps(belief: Belief, probes: Probes) -> Float[Tensor, "b p N"]:
    """How far D changes at all positions where the one at each probe is another scene's: the same
    by finite differences, seen from the other end."""
    scenes = belief.scenes
    before, other = belief.at(), scenes.other.flatten(1, 3)
    rows = torch.arange(len(before), device=before.device)
    maps: list[Tensor] = []
    for at in probes.at.unbind(1):
        x = scenes.x.flatten(1, 3).clone()
        x[rows, at] = other[rows, at]
        maps.append(belief.change(before, belief.at(x=x.reshape(scenes.x.shape))))
    return torch.stack(maps, dim=1)


def extents(
    maps: Float[Tensor, "b p N"], probes: Probes, grid: Grid, *, window: int
) -> dict[str, Float[Tensor, "b p"]]:
    """Numbers of each map without its own position; NaN where nothing is left of it.

    ``inside``: the share that lies in the window around the probe, in any frame. ``r50``, ``r90``:
    the distance in cells within which half of it lies, and nine tenths. ``participation``: over how
    many positions it is spread, (sum G)^2 / sum G^2. In clips ``r50_frames`` and ``r90_frames``.
    """
    index = torch.arange(grid.size, device=maps.device)
    places = torch.stack(torch.unravel_index(index, grid), dim=-1)
    away = (places[probes.at][:, :, None] - places).abs()  # b p N 3
    frames, cells = away[..., 0], away[..., 1:].amax(-1)
    own = probes.at[..., None] == index
    maps = maps.double().masked_fill(own | ~probes.valid[..., None], 0)
    total = maps.sum(-1)
    found = {
        "inside": torch.where(cells < window / 2, maps, 0).sum(-1) / total,
        "r50": _radius(maps, cells, 0.5),
        "r90": _radius(maps, cells, 0.9),
        "participation": total.square() / maps.square().sum(-1),
    }
    if frames.any():
        found["r50_frames"] = _radius(maps, frames, 0.5)
        found["r90_frames"] = _radius(maps, frames, 0.9)
    return {name: values.where(total > 0, torch.nan) for name, values in found.items()}


def aligned(
    maps: Float[Tensor, "*m N"], away: Int64[Tensor, "*m N 3"], grid: Grid
) -> Float[Tensor, "t h w"]:
    """The mean map, each taken as shares of itself and moved so that its own position, or its
    object, lies in the middle. `away` says how far each entry is from there. Empty ones are left
    out."""
    size = torch.tensor([2 * side - 1 for side in grid], device=maps.device)
    away = away + torch.tensor(grid, device=maps.device) - 1
    total = maps.sum(-1, keepdim=True)
    full = ((away >= 0) & (away < size)).all(-1) & (total > 0)
    flat = ((away[..., 0] * size[1] + away[..., 1]) * size[2] + away[..., 2])[full]
    shares = (maps / total)[full].double()
    sums, counts = (shares.new_zeros(int(size.prod())) for _ in range(2))
    sums.index_add_(0, flat, shares)
    counts.index_add_(0, flat, torch.ones_like(shares))
    return (sums / counts.clamp_min(1)).reshape(size.tolist()).float().cpu()


def aligned_maps(
    pixels: Float[Tensor, "b p N"], probes: Probes, objects: Float[Tensor, "b n N"], scenes: Scenes
) -> dict[str, Float[Tensor, "t h w"]]:
    """``maps/pixels`` around the probes, without their own position; ``maps/objects`` around the
    objects, in their own frames: what each does to D."""
    places, grid = scenes.places(), scenes.grid
    own = probes.at[..., None] == torch.arange(grid.size, device=pixels.device)
    pixels = pixels.masked_fill(own | ~probes.valid[..., None], 0)
    cells = scenes.offsets().round().long()  # b n N 2
    still = torch.zeros_like(cells[..., :1])
    return {
        "maps/pixels": aligned(pixels, places - places[probes.at][:, :, None], grid),
        "maps/objects": aligned(objects, torch.cat([still, cells.flip(-1)], dim=-1), grid),
    }


def _directions(clips: int, channels: int, draws: int, rng: Rng) -> Float[Tensor, "r b o"]:
    if channels <= draws:
        return torch.eye(channels)[:, None].expand(-1, clips, -1)
    signs = 2.0 * rng.fold("signs").bernoulli(0.5, draws, channels) - 1
    return signs.transpose(0, 1) / draws**0.5


def _radius(
    maps: Float[Tensor, "b p N"], away: Int64[Tensor, "b p N"], share: float
) -> Float[Tensor, "b p"]:
    """The least distance within which so much of each map lies."""
    mass = maps.new_zeros(*maps.shape[:2], int(away.amax()) + 1).scatter_add_(2, away, maps)
    reached = mass.cumsum(-1) >= share * mass.sum(-1, keepdim=True) * (1 - 1e-9)
    return reached.double().argmax(-1).double()
