"""Enforced locality: from outside the window nothing reaches an output, at any noise level, and
from its edge something does.
"""

import itertools

import pytest
import torch
from torch import Tensor

from vidcomp.models.backbone import Backbone, BackboneConfig
from vidcomp.seeding import initial_weights
from vidcomp.types import Grid

WIDTH = 12
LEVELS = (0.0, 0.2, 0.5, 0.8, 1.0)
GRID = Grid(3, 7, 6)
MIDDLE = (1, 3, 3)
SOME = [(t, h, w) for t in range(3) for h, w in ((0, 0), (3, 3), (6, 2))]
EVERY = list(itertools.product(*(range(size) for size in GRID)))

Place = tuple[int, int, int]


def trunk(**settings: object) -> Backbone:
    """A small trunk of random weights whose gates are open."""
    config = BackboneConfig.model_validate(
        {"depth": 4, "width": WIDTH, "heads": 2, "window": 5, "window_frames": 1} | settings
    )
    with initial_weights(0):
        backbone = Backbone(config)
        for name, parameter in backbone.named_parameters():
            if "modulation" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    return backbone.requires_grad_(False)


def inputs(grid: Grid = GRID, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden vectors, conditions, and what is local of the conditions."""
    generator = torch.Generator().manual_seed(0)
    hidden, local = torch.randn(2, batch, *grid, WIDTH, generator=generator)
    return hidden, torch.randn(batch, WIDTH, generator=generator), local


def reached(backbone: Backbone, places: list[Place], level: float = 0.5) -> list[Tensor]:
    """Where the outputs at some places have a gradient: with respect to hidden vectors, and to what
    is local of the condition. Both as places T H W; the places are the clips of a batch."""
    hidden, condition, local = (x.expand(len(places), *x.shape[1:]) for x in inputs())
    leaves = [x.clone().requires_grad_() for x in (hidden, local)]
    out = backbone(leaves[0], condition, local=leaves[1], level=torch.full((len(places),), level))
    upstream = torch.zeros_like(hidden)
    for i, place in enumerate(places):
        upstream[(i, *place)] = torch.linspace(-1, 1, WIDTH)
    return [(g != 0).any(-1) for g in torch.autograd.grad(out.out, leaves, upstream)]


def boxes(places: list[Place], frames: int, cells: int) -> Tensor:
    """The positions of the windows around some, as places T H W."""
    found: list[Tensor] = []
    for place in places:
        t, h, w = (
            (torch.arange(size) - middle).abs() <= radius
            for size, middle, radius in zip(GRID, place, (frames, cells, cells), strict=True)
        )
        found.append(t[:, None, None] & h[:, None] & w)
    return torch.stack(found)


@pytest.mark.parametrize("attention", ["joint", "factorised"])
@pytest.mark.parametrize("backend", ["plain", "sdpa"])
@pytest.mark.parametrize("window, frames", [(1, 1), (3, 1), (7, 3), (3, 5), (11, 3)])
def test_the_receptive_field_of_all_layers_is_the_window(
    attention: str, backend: str, window: int, frames: int
) -> None:
    backbone = trunk(
        attention=attention, attention_backend=backend, window=window, window_frames=frames
    )
    for found in reached(backbone, SOME):
        assert torch.equal(found, boxes(SOME, frames // 2, window // 2))


def test_no_output_at_all_sees_beyond_its_window() -> None:
    for found in reached(trunk(window=5, window_frames=3), EVERY):
        assert torch.equal(found, boxes(EVERY, 1, 2))


@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_a_window_that_follows_the_noise_is_exact_at_every_level(attention: str) -> None:
    backbone = trunk(attention=attention, window=3, window_at_noise=9)
    for level in LEVELS:
        for found in reached(backbone, SOME, level):
            assert torch.equal(found, boxes(SOME, 0, round(4 - 3 * level)))


def test_clips_of_a_batch_have_the_windows_of_their_own_levels() -> None:
    backbone = trunk(window=1, window_at_noise=9)
    hidden, condition, local = inputs(batch=len(LEVELS))
    level = torch.tensor(LEVELS)
    together = backbone(hidden, condition, local=local, level=level).out
    for i in range(len(LEVELS)):
        one = slice(i, i + 1)
        alone = backbone(hidden[one], condition[one], local=local[one], level=level[one]).out
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)
    other = backbone(hidden, condition, local=local, level=level.flip(0)).out
    assert torch.equal(other[2], together[2]) and not torch.allclose(other[0], together[0])


def test_either_axis_may_be_left_open() -> None:
    for found in reached(trunk(window=3, window_frames=None), SOME):
        assert torch.equal(found, boxes(SOME, 2, 1))
    for found in reached(trunk(window=None, window_frames=3), SOME):
        assert torch.equal(found, boxes(SOME, 1, 8))


@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_content_outside_the_window_changes_no_bit_inside(attention: str) -> None:
    backbone = trunk(attention=attention, window=5, window_frames=3)
    hidden, condition, local = inputs()
    before = backbone(hidden, condition, local=local).out
    for at in (MIDDLE, (0, 0, 0), (2, 6, 4)):
        outside = ~boxes([at], 1, 2)[..., None]
        others = [torch.where(outside, 9 * x.flip(-1), x) for x in (hidden, local)]
        after = backbone(others[0], condition, local=others[1]).out
        assert torch.equal(after[(0, *at)], before[(0, *at)])
        assert not torch.equal(after, before)


def test_after_global_blocks_the_local_condition_alone_is_local() -> None:
    pixels, told = reached(trunk(window=3, global_blocks=1), SOME)
    assert pixels.all()
    assert torch.equal(told, boxes(SOME, 0, 1))


def test_what_is_local_of_the_condition_is_added_where_it_stands() -> None:
    """Before all blocks it is as if the hidden vectors had held it, context tokens or not."""
    hidden, condition, local = inputs()
    backbone = trunk(window=None, window_frames=None)
    for context in (None, torch.ones(1, 2, WIDTH)):
        told = backbone(hidden, condition, context, local=local).out
        held = backbone(hidden + local, condition, context).out
        torch.testing.assert_close(told, held, rtol=1e-4, atol=1e-5)


def test_a_window_as_wide_as_the_grid_is_none() -> None:
    hidden, condition, _ = inputs()
    windowed = trunk(depth=2, window=2 * 2 * 8 + 1, window_frames=2 * 2 * 2 + 1)
    whole = trunk(depth=2, window=None, window_frames=None)
    whole.load_state_dict(windowed.state_dict())
    assert torch.equal(windowed(hidden, condition).out, whole(hidden, condition).out)


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 15, 25])
def test_the_radius_is_shared_out_evenly_and_the_rest_goes_to_the_middle(window: int) -> None:
    grid = Grid(1, 99, 99)

    def shares(window: int) -> list[int]:
        config = BackboneConfig(depth=7, window=window, global_blocks=2)
        first, second, *rest = config.windows(grid)
        assert first is None and second is None
        return [w.radius.h for w in rest if w is not None]

    radii = shares(window)
    assert len(radii) == 5 and sum(radii) == window // 2
    assert max(radii) - min(radii) <= 1 and radii[2] == max(radii)
    wider = shares(window + 2)
    assert all(a <= b for a, b in zip(radii, wider, strict=True)), "one lies within the other"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"window": 4}, "window=4 has no token in its middle; take 3 or 5"),
        ({"window": 0}, "window=0 is smaller than a token"),
        ({"window": 3, "window_frames": -1}, "window_frames=-1 is smaller than a token"),
        ({"window": 3, "window_at_noise": 6}, "window_at_noise=6 has no token .* 5 or 7"),
        ({"window_at_noise": 5}, "window_at_noise=5 shrinks to window=None"),
        ({"window": 7, "window_at_noise": 5}, "window_at_noise=5 shrinks to window=7 .* set"),
        ({"global_blocks": 1}, "global_blocks=1: without a window all blocks are global"),
        ({"window": 3, "global_blocks": 4}, "leaves no block of 4 a window; at most 3"),
        ({"window": 3, "attention_backend": "xformers"}, "xformers has no windows; use auto"),
    ],
)
def test_windows_without_a_meaning_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig.model_validate({"depth": 4} | settings)
