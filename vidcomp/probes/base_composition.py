"""Composition, measured on any denoiser: does it treat the objects that it is told of one by one?

arXiv:2509.16447 defines conditional projective composition (CPC): each object has a region of its
own, which depends on it alone, and regions are independent given the objects. What follows are its
consequences for D as numbers, this project's own [OWN]; each is zero, but the diagonal share one,
for a denoiser of CPC data whose regions fit into the window. See `base_locality` for the letters.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from vidcomp.probes.base_locality import Belief, Probes, Reach, Scenes, divergence
from vidcomp.probes.base_maps import Maps
from vidcomp.seeding import Rng


def removals(belief: Belief) -> Float[Tensor, "b n N"]:
    """H_i(k): how far D changes at each position where a prediction is asked, if object k is no
    longer told of."""
    scenes, full = belief.scenes, belief.at()
    changes = full.new_zeros(*scenes.given.shape, scenes.grid.size)
    for k in belief.told():
        without = belief.at(given=scenes.given & ~belief.alone(k))
        changes[:, k] = belief.change(full, without) * scenes.asked.flatten(1)
    return changes


def newcomers(scenes: Scenes, window: int, rng: Rng) -> Scenes:
    """The same with one object each, which x does not show: it stands in the middle of a drawn
    cell, in all frames. Its window lies inside the frame and meets that of no object; where there
    is no such cell, it is not given."""
    grid, device = scenes.grid, scenes.x.device
    away = scenes.distances().masked_fill(~scenes.given[..., None], torch.inf).amin(1)
    nearest = away.unflatten(1, grid).amin(1)  # b H W: as near as one ever comes
    lines, columns = (torch.arange(size, device=device) + 0.5 for size in grid[1:])
    to_edge = [
        torch.minimum(x, size - x) for x, size in zip((lines, columns), grid[1:], strict=True)
    ]
    inside = torch.minimum(to_edge[0][:, None], to_edge[1]) >= window / 2
    free = (nearest >= window) & inside
    drawn = rng.fold("newcomer").uniform(*grid[1:]).masked_fill(~free, 0).flatten(1).argmax(1)
    point = torch.stack([columns[drawn % grid.w] / grid.w, lines[drawn // grid.w] / grid.h], dim=-1)
    points = point[:, None, None].expand(-1, scenes.points.shape[1], -1, -1)
    return replace(scenes, points=points, given=free.flatten(1).any(1, keepdim=True))


def insertions(belief: Belief, new: Scenes) -> Float[Tensor, "b 1 N"]:
    """H_i of `newcomers`: how far D changes if it is told of one more object."""
    scenes = belief.scenes
    points = torch.cat([scenes.points, new.points], dim=2)
    # Both times with room for it: sums over more objects may be rounded in another way.
    without, told = (
        belief.at(points=points, given=torch.cat([scenes.given, there], dim=1))
        for there in (torch.zeros_like(new.given), new.given)
    )
    return (belief.change(without, told) * scenes.asked.flatten(1))[:, None]


def leakage(changes: Float[Tensor, "b n N"], scenes: Scenes, window: int) -> Float[Tensor, " b"]:
    """The share of what objects do to D that lies outside the window around them."""
    return _share(changes, scenes.distances() > window / 2)


def gradient_leakage(
    maps: Maps, probes: Probes, scenes: Scenes, window: int
) -> Float[Tensor, " b"]:
    """The same of gradients with respect to the objects' points, at the probes."""
    far = at_probes(scenes.distances(), probes) > window / 2
    return _share(maps.objects.double() * probes.valid[..., None], far)


def region_matrix(
    changes: Float[Tensor, "b n N"], scenes: Scenes, window: int
) -> Float[Tensor, "b n n"]:
    """B[j, k]: the mean of H_i(k) over the region of j; rows of regions in which no prediction is
    asked are zero."""
    regions = (scenes.regions(window) & scenes.asked.flatten(1)[:, None]).to(changes)
    return torch.einsum("bjN,bkN->bjk", regions, changes) / regions.sum(-1, True).clamp_min(1)


def diagonal_share(regions: Float[Tensor, "b n n"], scenes: Scenes) -> Float[Tensor, " b"]:
    """tr B / sum B; one for CPC."""
    diagonal = torch.eye(regions.shape[-1], dtype=torch.bool, device=regions.device)
    share = _share(regions, diagonal.expand_as(regions))
    return share.where(scenes.given.sum(1) > 1, torch.nan)


def additivity(belief: Belief) -> dict[str, Float[Tensor, " b"]]:
    """``additivity``: the squared error of D(none) + sum_j [D(j alone) - D(none)] where D(all) is
    meant, as a share of that of D(none). Log-probabilities add up, are normalised again, and err by
    KL(D(all) | theirs); how many nats a position is ``additivity_nats``.

    The right-hand side is the composition operator (arXiv:2502.04549, Def. 5.1): zero for who
    applies it, one for who might as well not have been told. Scenes of one object say nothing.
    """
    scenes = belief.scenes
    full, nothing = belief.at(), belief.at(given=belief.none())
    composed = nothing.clone()
    for k in belief.told():
        composed += belief.at(given=belief.alone(k)) - nothing
    asked, several = scenes.asked.flatten(1), scenes.given.sum(1) > 1

    def error(guess: Tensor) -> Float[Tensor, " b"]:
        if belief.codebooks:
            parts = [p.log_softmax(-1) for p in guess.split(belief.codebooks, dim=-1)]
            of_each = divergence(full, torch.cat(parts, dim=-1)).clamp_min(0)
        else:
            of_each = (guess - full).square().sum(-1)
        return torch.where(asked, of_each, 0).sum(1).where(several, torch.nan)

    residual = error(composed)
    found = {"additivity": residual / error(nothing)}
    if belief.codebooks:
        found["additivity_nats"] = residual / asked.sum(1)
    return found


def swap(belief: Belief, window: int) -> Float[Tensor, " b"]:
    """How far D changes on the region of each object where another scene stands outside of it and
    no other object is told of; as a share of the change if the region itself is the other scene's
    too, and nothing is told.

    What is kept reaches another half window beyond the region: what its edges may depend on.
    """
    scenes = belief.scenes
    full, other = belief.at(), belief.at(x=scenes.other, given=belief.none())
    replaced = belief.change(full, other)
    kept = scenes.distances() < window  # b n N: half of one for the region, half beyond it
    regions = scenes.regions(window) & scenes.asked.flatten(1)[:, None]
    changed, most = (full.new_zeros(len(full)) for _ in range(2))
    for k in belief.told():
        here = kept[:, k].unflatten(1, scenes.grid)[..., None]
        swapped = belief.at(x=torch.where(here, scenes.x, scenes.other), given=belief.alone(k))
        changed += torch.where(regions[:, k], belief.change(full, swapped), 0).sum(1)
        most += torch.where(regions[:, k], replaced, 0).sum(1)
    return changed / most


def nothing_beyond(
    reach: Reach, maps: Maps, probes: Probes, changes: Float[Tensor, "b n N"], scenes: Scenes
) -> Bool[Tensor, " b"]:
    """Whether all gradients from beyond `reach` are exactly zero, and what objects beyond it do."""
    places, grid = scenes.places(), scenes.grid
    away = (places - places[probes.at][:, :, None]).abs()  # b p N 3
    beyond = (away[..., 0] > reach.frames) | (away[..., 1:].amax(-1) > reach.cells)
    of_frames = scenes.distances().unflatten(2, grid)
    # An object is as near as it ever comes: it may be told of in other frames.
    nearest = of_frames.amin(2, keepdim=True).expand_as(of_frames).flatten(2)
    far = nearest > reach.objects
    leaks = [(maps.positions != 0) & beyond, (maps.objects != 0) & at_probes(far, probes)]
    at_valid = torch.stack([leak.any(-1) for leak in leaks]).any(0) & probes.valid
    return ~(at_valid.any(1) | ((changes != 0) & far).any(2).any(1))


def at_probes(of_objects: Shaped[Tensor, "b n N"], probes: Probes) -> Shaped[Tensor, "b p n"]:
    """Of what is known of each object and position, the part at the probes."""
    at = probes.at[..., None].expand(-1, -1, of_objects.shape[1])
    return of_objects.transpose(1, 2).gather(1, at)


def _share(of: Float[Tensor, "b m k"], where: Bool[Tensor, "b m k"]) -> Float[Tensor, " b"]:
    """NaN where there is nothing to share."""
    return torch.where(where, of, 0).sum((1, 2)) / of.sum((1, 2))
