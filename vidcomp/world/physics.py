"""Elastic discs in a box, seen from above: straight paths between collisions, which are solved for.

The next collision of each clip, of two discs or of a disc and a wall, is the root of a quadratic or
linear equation. Nothing is stepped, so nothing overlaps, and kinetic energy (between discs momentum
too) is conserved to rounding. Frames are read off the straight pieces: more frames a second show
the same motion.

Unusual: it computes in float64 with additions, multiplications, divisions and square roots alone,
which IEEE 754 rounds in one way. Collisions magnify rounding errors, so this is what keeps a clip
the same in any batch and on any device.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

MAX_COLLISIONS = 10_000
"""In one clip. More means that discs are wedged."""

Corners = tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2"]]
"""The lowest and the highest corner of each clip's box."""

_Walls = tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n 2"]]
"""Between which corners the centre of each disc stays."""


@dataclass(frozen=True)
class Motion:
    """Lengths in the unit of the start, times in frames. `contacts` as in `Truth`: whether, since
    the frame before, disc i touched disc j, or in the last column a wall."""

    positions: Float[Tensor, "b t n 2"]
    velocities: Float[Tensor, "b t n 2"]
    contacts: Bool[Tensor, "b t n n+1"]


@dataclass
class _State:
    """All discs at one time, which each clip has its own of."""

    time: Float[Tensor, " b"]
    x: Float[Tensor, "b n 2"]
    v: Float[Tensor, "b n 2"]


def simulate(
    positions: Float[Tensor, "b n 2"],
    velocities: Float[Tensor, "b n 2"],
    *,
    radius: Float[Tensor, "b n"],
    mass: Float[Tensor, "b n"],
    present: Bool[Tensor, "b n"],
    num_frames: int,
    bounds: Corners | None,
) -> Motion:
    """`num_frames` frames from a start without overlaps; velocities are lengths per frame.

    `bounds` None: no walls. A disc that is not present stands still and touches nothing.
    """
    b, n = present.shape
    walls = _walls(bounds, radius.double(), present)
    mass = torch.where(present, mass, 1).double()
    pairs = torch.triu_indices(n, n, offset=1, device=present.device)
    v = torch.where(present[..., None], velocities, 0).double()
    state = _State(v.new_zeros(b), positions.double(), v)
    frame_time = torch.arange(num_frames, device=present.device).double()
    shown = Motion(
        positions=v.new_zeros(b, num_frames, n, 2),
        velocities=v.new_zeros(b, num_frames, n, 2),
        contacts=present.new_zeros(b, num_frames, n, n + 1),
    )
    for _ in range(MAX_COLLISIONS):
        _show(state, frame_time, shown)
        never = v.new_full((b, 1), math.inf)
        until_discs = _until_discs(state, pairs, radius.double(), present)
        until_walls = _until_walls(state, walls).flatten(1)
        wait, event = torch.cat([never, until_discs, until_walls], dim=1).min(dim=1)
        event = torch.where(state.time + wait <= num_frames - 1, event, 0)  # 0: nothing more to see
        if not event.any():
            dtype = positions.dtype
            return Motion(shown.positions.to(dtype), shown.velocities.to(dtype), shown.contacts)
        wait = torch.where(event > 0, wait, 0)
        state = _State(state.time + wait, state.x + state.v * wait[:, None, None], state.v)
        hits = F.one_hot(event, 1 + pairs.shape[1] + 2 * n).bool()
        disc_hits = hits[:, 1 : 1 + pairs.shape[1]]
        wall_hits = hits[:, 1 + pairs.shape[1] :].reshape(b, n, 2)
        _bounce(state, pairs, disc_hits, wall_hits, mass)
        _note(shown.contacts, state.time, pairs, disc_hits, wall_hits)
    raise ValueError(f"over {MAX_COLLISIONS} collisions in {num_frames} frames: discs are wedged")


def _show(state: _State, frame_time: Float[Tensor, " t"], shown: Motion) -> None:
    """Every frame from now on, as if nothing more happened; what happens next overwrites it."""
    since = frame_time - state.time[:, None]  # b t
    later = (since >= 0)[..., None, None]
    ahead = state.x[:, None] + state.v[:, None] * since[..., None, None]
    torch.where(later, ahead, shown.positions, out=shown.positions)
    torch.where(later, state.v[:, None], shown.velocities, out=shown.velocities)


def _until_discs(
    state: _State,
    pairs: Int64[Tensor, "2 p"],
    radius: Float[Tensor, "b n"],
    present: Bool[Tensor, "b n"],
) -> Float[Tensor, "b p"]:
    """When |x + v t| = r, for the difference x, v of two discs and the sum r of their radii."""
    i, j = pairs
    x, v = state.x[:, j] - state.x[:, i], state.v[:, j] - state.v[:, i]
    reach = radius[:, i] + radius[:, j]
    a, b, c = _dot(v, v), _dot(x, v), _dot(x, x) - reach * reach
    discriminant = b * b - a * c
    meets = present[:, i] & present[:, j] & (b < 0) & (discriminant > 0)
    wait = c / (discriminant.clamp_min(0).sqrt() - b)  # the smaller root, without cancellation
    return torch.where(meets, wait.clamp_min(0), math.inf)


def _until_walls(state: _State, walls: _Walls) -> Float[Tensor, "b n 2"]:
    """Until a disc touches the wall that it moves towards, horizontally and vertically."""
    low, high = walls
    room = torch.where(state.v > 0, high - state.x, low - state.x)
    return torch.where(state.v == 0, math.inf, (room / state.v).clamp_min(0))


def _bounce(
    state: _State,
    pairs: Int64[Tensor, "2 p"],
    disc_hits: Bool[Tensor, "b p"],
    wall_hits: Bool[Tensor, "b n 2"],
    mass: Float[Tensor, "b n"],
) -> None:
    """A wall turns one component of a velocity round; discs exchange momentum along their axis."""
    i, j = pairs
    x, v = state.x[:, j] - state.x[:, i], state.v[:, j] - state.v[:, i]
    m_i, m_j = mass[:, i], mass[:, j]
    strength = -2 * m_i * m_j / (m_i + m_j) * _dot(x, v) / _dot(x, x)
    impulse = torch.where(disc_hits[..., None], strength[..., None] * x, 0)  # b p 2, of j
    v = torch.where(wall_hits, -state.v, state.v)
    v = v.index_add(1, j, impulse / m_j[..., None])  # one impulse a clip: the order cannot matter
    state.v = v.index_add(1, i, -impulse / m_i[..., None])


def _note(
    contacts: Bool[Tensor, "b t n n+1"],
    time: Float[Tensor, " b"],
    pairs: Int64[Tensor, "2 p"],
    disc_hits: Bool[Tensor, "b p"],
    wall_hits: Bool[Tensor, "b n 2"],
) -> None:
    """Write down who touched whom, in the first frame at or after `time`."""
    b, num_frames, n, _ = contacts.shape
    touched = contacts.new_zeros(b, n, n + 1)
    touched[:, pairs[0], pairs[1]] = disc_hits
    touched[:, pairs[1], pairs[0]] = disc_hits
    touched[:, :, n] = wall_hits.any(-1)
    frame = torch.arange(num_frames, device=time.device) == time.ceil()[:, None]  # b t
    contacts |= frame[..., None, None] & touched[:, None]


def _walls(
    bounds: Corners | None, radius: Float[Tensor, "b n"], present: Bool[Tensor, "b n"]
) -> _Walls:
    if bounds is None:
        far = torch.full_like(radius, math.inf)[..., None].expand(-1, -1, 2)
        return -far, far
    low = bounds[0][:, None].double() + radius[..., None]
    high = bounds[1][:, None].double() - radius[..., None]
    if not (low < high)[present].all():
        raise ValueError("a disc is as wide as its box; give it a smaller radius")
    return low, high


def _dot(a: Float[Tensor, "b p 2"], b: Float[Tensor, "b p 2"]) -> Float[Tensor, "b p"]:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]
