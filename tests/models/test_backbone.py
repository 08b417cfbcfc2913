"""The trunk: any grid, one clip at a time, and every position knows where it is."""

import pytest
import torch
from torch import Tensor

from vidcomp.models.backbone import SIZES, Backbone, BackboneConfig
from vidcomp.seeding import initial_weights
from vidcomp.types import Grid

ATTENTIONS = ("joint", "factorised")
GRIDS = (Grid(3, 2, 4), Grid(1, 3, 3), Grid(4, 1, 1), Grid(1, 1, 1))


def trunk(attention: str, *, gates: float = 0.3) -> Backbone:
    """A small trunk whose gates are open."""
    config = BackboneConfig.model_validate(
        {"depth": 2, "width": 24, "heads": 2, "attention": attention}
    )
    with initial_weights(0):
        backbone = Backbone(config)
        for name, parameter in backbone.named_parameters():
            if "modulation" in name:
                torch.nn.init.normal_(parameter, std=gates)
    return backbone.requires_grad_(False)


def inputs(grid: Grid, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(batch, *grid, 24, generator=generator)
    return hidden, torch.randn(batch, 24, generator=generator)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("grid", GRIDS)
def test_clips_do_not_see_each_other_on_any_grid(attention: str, grid: Grid) -> None:
    backbone, (hidden, condition) = trunk(attention), inputs(grid)
    out = backbone(hidden, condition).out
    assert out.shape == hidden.shape
    singly = [backbone(hidden[i : i + 1], condition[i : i + 1]).out for i in range(3)]
    torch.testing.assert_close(out, torch.cat(singly), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("gates", [0.0, 0.3])
def test_positions_of_equal_content_are_told_apart(attention: str, gates: float) -> None:
    """With rotary positions alone they are not: a mean of equal values is that value. All masked
    is where sampling begins.
    """
    _, condition = inputs(GRIDS[0], batch=1)
    out = trunk(attention, gates=gates)(torch.ones(1, *GRIDS[0], 24), condition).out
    vectors = out.flatten(0, 3)
    distances = torch.cdist(vectors, vectors) + torch.eye(len(vectors))
    assert distances.min() > 1e-2


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_condition_reaches_every_position(attention: str) -> None:
    hidden, condition = inputs(GRIDS[0], batch=1)
    backbone = trunk(attention)
    change = backbone(hidden, condition).out - backbone(hidden, condition + 1).out
    assert (change.abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_backends_agree_through_the_whole_trunk(attention: str) -> None:
    hidden, condition = inputs(GRIDS[0])
    outs: list[Tensor] = []
    for backend in ("plain", "sdpa"):
        backbone = trunk(attention)
        for block in backbone.blocks:
            block.attention.backend = backend
        outs.append(backbone(hidden, condition).out)
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)


def test_layers_are_those_asked_for_in_the_order_of_depth() -> None:
    hidden, condition = inputs(GRIDS[0])
    backbone = trunk("joint")
    every = backbone(hidden, condition, layers=(0, 1)).layers
    assert len(every) == 2 and all(x.shape == (3, GRIDS[0].size, 24) for x in every)
    (last,) = backbone(hidden, condition, layers=(1,)).layers
    assert torch.equal(last, every[1])
    assert backbone(hidden, condition).layers == ()
    swapped = backbone(hidden, condition, layers=(1, 0)).layers
    assert all(torch.equal(a, b) for a, b in zip(swapped, every, strict=True))


def test_one_dial_fixes_all_and_each_field_overrides_it() -> None:
    for size, dimensions in SIZES.items():
        assert BackboneConfig.model_validate({"size": size}).dimensions == dimensions
    config = BackboneConfig(size="small", depth=3)
    assert config.dimensions == (3, *SIZES["small"][1:])


@pytest.mark.parametrize("width, heads", [(24, 5), (24, 24), (20, 4), (6, 2)])
def test_heads_without_three_pairs_of_channels_are_refused(width: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"width {width} and heads {heads} leave .* a head"):
        BackboneConfig(width=width, heads=heads)


def with_context(grid: Grid, count: int = 3) -> tuple[Backbone, Tensor, Tensor, Tensor]:
    hidden, condition = inputs(grid)
    context = torch.randn(3, count, 24, generator=torch.Generator().manual_seed(1))
    return trunk("joint"), hidden, condition, context


@pytest.mark.parametrize("grid", GRIDS)
def test_context_is_seen_and_left_out_of_what_comes_back(grid: Grid) -> None:
    backbone, hidden, condition, context = with_context(grid)
    made = backbone(hidden, condition, context, layers=(0, 1))
    assert made.out.shape == hidden.shape
    assert [x.shape for x in made.layers] == [(3, grid.size, 24)] * 2
    without = backbone(hidden, condition).out
    other = backbone(hidden, condition, context.flip(-1)).out
    for changed in (without, other):
        assert ((made.out - changed).abs().amax(-1) > 1e-4).all(), "by every position"
    singly = backbone(hidden[1:2], condition[1:2], context[1:2]).out
    torch.testing.assert_close(singly, made.out[1:2], rtol=1e-4, atol=1e-5)


def test_context_tokens_have_no_order() -> None:
    backbone, hidden, condition, context = with_context(GRIDS[0])
    made = backbone(hidden, condition, context).out
    shuffled = backbone(hidden, condition, context[:, [2, 0, 1]]).out
    torch.testing.assert_close(shuffled, made, rtol=1e-4, atol=1e-5)


def test_no_context_tokens_are_no_context() -> None:
    backbone, hidden, condition, context = with_context(GRIDS[0], count=0)
    torch.testing.assert_close(
        backbone(hidden, condition, context).out, backbone(hidden, condition).out
    )
