"""The contract of the family `datasets`, asked of every variant.

A new variant needs an example in `EXAMPLES`: a config that builds in a second.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vidcomp.datasets import base
from vidcomp.datasets.base import DATASETS, store

FACTORS = {"shape": ["circle", "triangle"], "colour": ["red", "blue"], "motion": ["right", "up"]}


def sprites(seed: int, folder: Path) -> base.Config:
    raw = {"name": "sprites", "num_clips": 21, "seed": seed, "num_frames": 3, "factors": FACTORS}
    return DATASETS.config({**raw, "height": 24, "width": 30})


def folder(seed: int, folder: Path) -> base.Config:
    store(sprites(seed, folder).build(), folder / f"{seed}")
    return DATASETS.config({"name": "folder", "path": folder / f"{seed}"})


EXAMPLES: dict[str, Callable[[int, Path], base.Config]] = {"sprites": sprites, "folder": folder}


@pytest.fixture(scope="module", params=DATASETS.names())
def configs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Two configs of one variant, whose clips differ."""
    assert request.param in EXAMPLES, f"add an example of {request.param!r} to EXAMPLES"
    place = tmp_path_factory.mktemp(request.param)
    return [EXAMPLES[request.param](seed, place) for seed in (0, 1)]


def test_sizes_and_classes_are_as_stated(configs: list[base.Config]) -> None:
    dataset = configs[0].build()
    clips = dataset.clips(torch.arange(len(dataset)))
    n, f, v = len(dataset), len(dataset.factors), dataset.factors.value_size
    assert clips.frames.shape == (n, dataset.num_frames, dataset.height, dataset.width, 3)
    assert clips.frames.dtype == torch.uint8
    assert clips.values.shape == (n, f, v)
    assert dataset.fps > 0
    assert torch.equal(clips.classes, dataset.classes())
    sizes = torch.tensor(dataset.factors.sizes)
    assert ((clips.classes >= 0) & (clips.classes < sizes)).all()


def test_a_clip_is_the_same_in_any_batch_and_order(configs: list[base.Config]) -> None:
    whole = configs[0].build().clips(torch.arange(21))
    dataset = configs[0].build()
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    for batch in order.split(4):
        clips = dataset.clips(batch)
        assert torch.equal(clips.frames, whole.frames[batch])
        assert torch.equal(clips.classes, whole.classes[batch])
        assert torch.equal(clips.values, whole.values[batch])
        truth, all_truth = dataset.truth(batch), dataset.truth(torch.arange(21))
        assert (truth is None) == (all_truth is None)
        if truth is not None and all_truth is not None:
            rows, ours = all_truth[batch].tensors(), truth.tensors()
            assert rows.keys() == ours.keys()
            for name, x in ours.items():
                assert torch.equal(x.nan_to_num(), rows[name].nan_to_num()), name
    again = dataset.clips(torch.tensor([5, 5]))
    assert torch.equal(again.frames, whole.frames[[5, 5]])


def test_values_lie_in_the_box_of_their_class(configs: list[base.Config]) -> None:
    dataset = configs[0].build()
    clips = dataset.clips(torch.arange(len(dataset)))
    off = (clips.values - dataset.factors.prototypes(clips.classes)).abs()
    assert (off <= dataset.factors.spreads(clips.classes) + 1e-5).all()


def test_truth_shows_the_object(configs: list[base.Config]) -> None:
    dataset = configs[0].build()
    everything = torch.arange(len(dataset))
    clips, truth = dataset.clips(everything), dataset.truth(everything)
    if truth is None:
        pytest.skip("no truth")
    if truth.segments is None:
        pytest.skip("no segments")
    assert truth.segments.shape == clips.frames.shape[:4]
    masks = truth.masks().float()  # b t n h w
    assert truth.present.any() and not masks.sum((1, 3, 4))[~truth.present].any()
    y, x = torch.arange(dataset.height) * 1.0, torch.arange(dataset.width) * 1.0
    area = masks.sum((3, 4))
    centroid = torch.stack([masks.sum(3) @ x, masks.sum(4) @ y], dim=-1) / area[..., None]
    whole = area > 0 if truth.visibility is None else truth.visibility > 0.999
    assert (centroid - truth.positions_px)[whole].abs().amax() < 0.03 * dataset.width


def test_the_fingerprint_tells_content(configs: list[base.Config]) -> None:
    first, second = configs
    assert first.build().fingerprint == first.build().fingerprint
    assert first.build().fingerprint != second.build().fingerprint
    frames = [config.build().clips(torch.arange(21)).frames for config in configs]
    assert not (frames[0] == frames[1]).flatten(1).all(1).any()


def test_config_survives_being_stored(configs: list[base.Config]) -> None:
    for config in configs:
        assert DATASETS.config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("index", [-1, 21])
def test_no_index_beyond_the_end(configs: list[base.Config], index: int) -> None:
    dataset = configs[0].build()
    for ask in (dataset.clips, dataset.truth):
        with pytest.raises(IndexError, match="numbered 0 to 20"):
            ask(torch.tensor([0, index]))
