"""Locality, measured on any denoiser: which of what it is shown, and of what it is told, each of
its predictions depends on.

The second paper (arXiv:2509.16447) says that a generator composes where its scores are local: what
is predicted at a place depends on few pixels and few conditions, those nearby. It shows maps of
gradients; how they were normalised and averaged, and any number, were not found. All numbers here
are this project's own [OWN].

D(x, c) is what a denoiser believes of the clean scene, given x and the objects c that it is told
of: the expected latents, or the log-probabilities of codes. Not its score, which has a trivial term
of its own position. Beliefs differ by the length of D - D', or by the root of their Jensen-Shannon
divergence, which is a distance too: the divergence itself is a square, and would hide small leaks.

Distances are in cells of the latent grid, the larger one of across and down, as windows are square;
those in time are in latent frames and stand on their own. A window of w cells holds the positions
less than w / 2 away, and the objects whose point is no more than w / 2 away in the same frame.

Letters: `p` probes, positions looked at in each scene; `n` objects; `N` = T H W positions; `e`
channels of what is shown, `o` of a belief.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidcomp.probes.base_subject import ClipSet
from vidcomp.seeding import Rng
from vidcomp.types import Grid, Latents, State
from vidcomp.world.locations import shown

Codebooks = tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """What a generator is shown of scenes at one level: `state`, behind which are the latents
    `clean`; and `swapped`, the same with the scene before in each one's place: the same positions
    hidden, or noise of its own, which is as likely."""

    clean: Latents
    state: State
    swapped: State


@dataclass(frozen=True)
class Scenes:
    """What a denoiser is shown and told.

    `x` is latents, noised or with some hidden, or embedded codes; `other` another scene's in their
    place, noised to the same level or with the same hidden. `shown` marks where x holds data,
    `asked` where a prediction is wanted. `points` are as in `world.locations.Locations`.

    `clean` are the latents behind x, which has alpha clean + sigma noise of them; on a sampler's
    path, the sample that it ends at, and x goes its own way.
    """

    x: Float[Tensor, "b T H W e"]
    other: Float[Tensor, "b T H W e"]
    shown: Bool[Tensor, "b T H W"]
    asked: Bool[Tensor, "b T H W"]
    points: Float[Tensor, "b t n 2"]
    given: Bool[Tensor, "b n"]
    clean: Float[Tensor, "b T H W d"]
    alpha: float = 1.0
    sigma: float = 0.0

    @property
    def grid(self) -> Grid:
        return Grid(*self.asked.shape[1:])

    def places(self) -> Int64[Tensor, "N 3"]:
        """Frame, line and column of each position."""
        index = torch.arange(self.grid.size, device=self.x.device)
        return torch.stack(torch.unravel_index(index, self.grid), dim=-1)

    def offsets(self) -> Float[Tensor, "b n N 2"]:
        """How far the middle of each position's cell lies to the right of each object's point in
        the same frame, and below it."""
        grid, (frame, line, column) = self.grid, self.places().unbind(-1)
        points = shown(self.points, grid, per="frame").transpose(1, 2)  # b n T 2
        size = torch.tensor([grid.w, grid.h], device=points.device)
        return torch.stack([column, line], dim=-1) + 0.5 - points[:, :, frame] * size

    def distances(self) -> Float[Tensor, "b n N"]:
        return self.offsets().abs().amax(-1)

    def regions(self, window: int) -> Bool[Tensor, "b n N"]:
        """What belongs to each object that is told: less than half a window from it, and from no
        other."""
        near = (self.distances() <= window / 2) & self.given[..., None]
        return near & (near.sum(1, keepdim=True) == 1)


@dataclass(frozen=True)
class Belief:
    """A denoiser at work on `scenes`: `of(x, points, given)` is D, with gradients; it may be told
    of more points than the scenes have. It has `codebooks` if D are the log-probabilities of their
    codes, one codebook after the other."""

    scenes: Scenes
    of: Callable[[Tensor, Tensor, Tensor], Float[Tensor, "b T H W o"]]
    codebooks: Codebooks = ()

    @torch.no_grad()
    def at(
        self,
        *,
        x: Tensor | None = None,
        points: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Float[Tensor, "b N o"]:
        """D, of something else than the scenes if asked, in double precision."""
        scenes = self.scenes
        x, given = scenes.x if x is None else x, scenes.given if given is None else given
        points = scenes.points if points is None else points
        return self.of(x, points, given).flatten(1, 3).double()

    def change(
        self, before: Float[Tensor, "b N o"], after: Float[Tensor, "b N o"]
    ) -> Float[Tensor, "b N"]:
        """How far two beliefs are apart, at each position."""
        if not self.codebooks:
            return (after - before).norm(dim=-1)
        middle = torch.logaddexp(before, after) - math.log(2)
        divergences = (divergence(before, middle) + divergence(after, middle)) / 2
        same = (before == after).all(-1)  # which rounding should not hide
        return divergences.clamp_min(0).sqrt().masked_fill(same, 0)

    def told(self) -> list[int]:
        """The objects that are given in some scene."""
        return self.scenes.given.any(0).nonzero()[:, 0].tolist()

    def none(self) -> Bool[Tensor, "b n"]:
        return torch.zeros_like(self.scenes.given)

    def alone(self, k: int) -> Bool[Tensor, "b n"]:
        """Told of object k, if at all, and of no other."""
        chosen = self.none()
        chosen[:, k] = self.scenes.given[:, k]
        return chosen


@dataclass(frozen=True)
class Reach:
    """How far from a position the furthest thing stands that its prediction can depend on: in cells
    and in latent frames, and for objects in cells."""

    cells: float
    frames: float
    objects: float


@runtime_checkable
class Opened(Protocol):
    """A generator that can be asked what it believes."""

    def seen(self, clips: ClipSet, levels: Sequence[float]) -> list[Seen]:
        """These clips, noised or hidden as in training."""
        ...

    def path(self, clips: ClipSet, levels: Sequence[float]) -> list[Seen]:
        """The states of its own sampler, without guidance and asked for the objects of these
        clips, as it goes past each level: the last one that is not beyond."""
        ...

    def belief(self, clips: ClipSet, seen: Seen) -> Belief:
        """Of what it is shown, told of all objects of these clips. Raises UserError for places
        outside."""
        ...

    def global_paths(self) -> list[str]:
        """Every way from anywhere to an output; none, if locality is enforced."""
        ...

    def reach(self, level: float) -> Reach:
        """By construction; of a network without global paths. In clips whose frames all see each
        other that is endless in time."""
        ...

    def untrained(self) -> "Opened": ...


@dataclass(frozen=True)
class Probes:
    """Positions, padded: those that are not `valid` stand for nothing."""

    at: Int64[Tensor, "b p"]
    valid: Bool[Tensor, "b p"]


def choose_probes(
    scenes: Scenes, where: Bool[Tensor, "b T H W"], *, num: int, window: int, rng: Rng
) -> Probes:
    """At most `num` positions of each scene among those `where`: middles of objects, their edges,
    and background, of each as many as there are until a third is full, in a drawn order."""
    far = scenes.distances().masked_fill(~scenes.given[..., None], torch.inf).amin(1)  # b N
    kind = (far > 0.5).long() + (far > window / 2)
    draw = rng.fold("probes").uniform(scenes.grid.size)
    draw = draw.masked_fill(~where.flatten(1), torch.inf)
    turn = torch.full_like(draw, torch.inf)
    for k in range(3):  # objects, edges and background take turns
        of_kind = (kind == k) & draw.isfinite()
        rank = draw.masked_fill(~of_kind, torch.inf).argsort(1).argsort(1)
        turn = torch.where(of_kind, 3.0 * rank + k, turn)
    first, at = turn.sort(dim=1, stable=True)
    return Probes(at[:, :num], first[:, :num].isfinite())


def divergence(log_p: Float[Tensor, "b N k"], log_q: Float[Tensor, "b N k"]) -> Tensor:
    """Kullback and Leibler's KL(p | q), of all codebooks together."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
