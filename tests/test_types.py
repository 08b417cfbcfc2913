"""The vocabulary: conversions are inverse, checks at the door name what is wrong."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from vidcomp.config import UserError
from vidcomp.types import (
    Grid,
    Latents,
    LatentSpec,
    Losses,
    check_video,
    frames_from_video,
    mean_where,
    num_parameters,
    video_from_frames,
)


def test_frames_to_video_and_back_is_exact_for_every_pixel_value() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(2, 2, 8, 8, 3)
    video = video_from_frames(frames)
    assert video.shape == (2, 3, 2, 8, 8)
    assert video.amin() == -1 and video.amax() == 1
    assert torch.equal(frames_from_video(video), frames)


def test_frames_keep_their_place() -> None:
    frames = torch.zeros(1, 2, 3, 4, 3, dtype=torch.uint8)
    frames[0, 1, 2, 3, 0] = 255
    video = video_from_frames(frames)
    assert video[0, 0, 1, 2, 3] == 1 and (video == 1).sum() == 1


def test_video_outside_the_range_is_clipped_into_frames() -> None:
    video = torch.tensor([-3.0, 3.0, 0.0]).reshape(1, 3, 1, 1, 1)
    assert frames_from_video(video).flatten().tolist() == [0, 255, 128]


@pytest.mark.parametrize(
    "video, words",
    [
        (torch.zeros(3, 4, 8, 8), ["float 'b 3 t h w'", "(3, 4, 8, 8)"]),
        (torch.zeros(1, 4, 8, 8, 3), ["(1, 4, 8, 8, 3)"]),
        (torch.zeros(1, 3, 4, 8, 8, dtype=torch.uint8), ["torch.uint8", "video_from_frames"]),
        (torch.full((1, 3, 1, 2, 2), 1.5), ["[-1, 1]", "[1.5, 1.5]"]),
        (torch.full((1, 3, 1, 2, 2), math.nan), ["nan", "NaN is never legal"]),
    ],
)
def test_check_video_says_what_is_wrong(video: torch.Tensor, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        check_video(video)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_check_video_accepts_what_the_contract_allows() -> None:
    check_video(torch.rand(2, 3, 1, 4, 4) * 2 - 1)
    check_video(torch.zeros(0, 3, 4, 8, 8))
    check_video(torch.zeros(1, 3, 4, 8, 8, dtype=torch.bfloat16))


def test_grid_counts_the_first_frame_apart() -> None:
    spec = LatentSpec(Grid(4, 8, 8), channels=6)
    assert spec.grid(1, 8, 8) == Grid(1, 1, 1)  # an image
    assert spec.grid(17, 64, 32) == Grid(5, 8, 4)
    assert spec.grid(17, 64, 32).size == 5 * 8 * 4


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_grid_is_legal_exactly_where_lengths_divide(stride: int) -> None:
    spec = LatentSpec(Grid(stride, stride, 1), channels=1)
    for length in range(14):
        legal_frames = length >= 1 and (length - 1) % stride == 0
        legal_height = length >= 1 and length % stride == 0
        for legal, size in ((legal_frames, (length, 8, 8)), (legal_height, (1, length, 8))):
            if legal:
                spec.grid(*size)
            else:
                with pytest.raises(UserError):
                    spec.grid(*size)


def test_grid_names_the_legal_sizes() -> None:
    spec = LatentSpec(Grid(4, 8, 8), channels=6)
    with pytest.raises(UserError, match=r"16 frames .* 1, 5, 9, 13, 17"):
        spec.grid(16, 64, 64)
    with pytest.raises(UserError, match=r"width 61 .* 56 and 64"):
        spec.grid(17, 64, 61)
    with pytest.raises(UserError, match=r"height 5 .* nearest 8"):
        spec.grid(17, 5, 64)


def test_latents_are_indexed_together_with_their_codes() -> None:
    values = torch.rand(3, 1, 2, 2, 4)
    codes = torch.arange(12).reshape(3, 1, 2, 2, 1)
    rows = torch.tensor([2, 0])
    picked = Latents(values, codes)[rows]
    assert torch.equal(picked.values, values[rows])
    assert picked.codes is not None and torch.equal(picked.codes, codes[rows])
    assert Latents(values)[1:].codes is None
    assert Latents(values).grid == Grid(1, 2, 2) and len(picked) == 2


def test_total_is_the_weighted_sum_and_plus_joins() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    first = Losses.of({"a": a}, psnr_db=b)
    both = first.plus(Losses.of({"b": b}, {"b": 0.5}))
    assert torch.equal(first.total(), a)
    assert torch.equal(both.total(), a + 0.5 * b)
    assert set(both.metrics) == {"psnr_db"}


def test_mean_where_is_the_mean_of_the_marked() -> None:
    x = torch.rand(4, 3, 5)
    where = torch.rand(4, 3, 5) < 0.5
    where[0] = False
    where[1] = True
    mean = mean_where(x, where)
    assert mean[0] == 0
    torch.testing.assert_close(mean[1], x[1].mean())
    torch.testing.assert_close(mean[2], x[2][where[2]].mean())


def test_mean_where_does_not_see_the_unmarked() -> None:
    x = torch.tensor([[1.0, math.nan], [3.0, math.inf]])
    where = torch.tensor([[True, False], [True, False]])
    assert mean_where(x, where).tolist() == [1.0, 3.0]


def test_shapes_in_signatures_are_checked_while_testing() -> None:
    with pytest.raises(TypeCheckError):
        mean_where(torch.rand(2, 3), torch.rand(2, 4) < 0.5)


def test_num_parameters_counts_what_is_trained() -> None:
    layer = torch.nn.Linear(3, 4)
    assert num_parameters(layer) == 16
    layer.bias.requires_grad_(False)
    assert num_parameters(layer) == 12
