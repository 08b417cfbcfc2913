"""The contract of the family `datasets`, asked of every variant.

A new variant needs an example in `EXAMPLES`: a config that builds in a second.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from published import (
    clevr_object,
    shapes3d_labels,
    steady,
    write_celeba,
    write_clevr,
    write_phyworld,
    write_shapes3d,
)
from published_covla import MIDNIGHT_MS, NOON_MS, write_covla
from published_movi import write_movi
from published_videos import moving, write_cater, write_clevrer

from vidcomp.datasets import base
from vidcomp.datasets.base import DATASETS, Clips, Dataset
from vidcomp.seeding import Rng
from vidcomp.storage import store
from vidcomp.world.truth import Truth

NUM = 12
"""Clips of each example."""

FACTORS = {"shape": ["circle", "triangle"], "colour": ["red", "blue"], "motion": ["right", "up"]}


def sprites(seed: int, folder: Path) -> base.Config:
    raw = {"name": "sprites", "num_clips": NUM, "seed": seed, "num_frames": 3, "factors": FACTORS}
    return DATASETS.config({**raw, "height": 24, "width": 30})


def events(seed: int, folder: Path) -> base.Config:
    chosen = {"event": ["pass", "collide"], "presence": ["stay", "vanish"], "colour": ["red"]}
    raw = {"name": "events", "num_clips": NUM, "seed": seed, "num_frames": 5, "factors": chosen}
    return DATASETS.config({**raw, "height": 32, "width": 40, "varying": ["background", "texture"]})


def folder(seed: int, folder: Path) -> base.Config:
    store(sprites(seed, folder), folder / f"{seed}")
    return DATASETS.config({"name": "folder", "path": folder / f"{seed}"})


def mixture(seed: int, folder: Path) -> base.Config:
    few = [
        sprites(s, folder).model_copy(update={"num_clips": n})
        for s, n in ((seed, 5), (seed + 2, NUM - 5))
    ]
    return DATASETS.config({"name": "mixture", "parts": [{"dataset": part} for part in few]})


def shapes3d(seed: int, folder: Path) -> base.Config:
    rows = np.random.default_rng(seed).choice(480_000, 40, replace=False)
    write_shapes3d(folder / f"{seed}.h5", shapes3d_labels()[np.sort(rows)], seed=seed)
    return DATASETS.config({"name": "shapes3d", "path": folder / f"{seed}.h5", "num_clips": NUM})


def celeba(seed: int, folder: Path) -> base.Config:
    draw = np.random.default_rng(seed).choice([-1, 1], (NUM, 3)).tolist()
    marks = [{"Male": m, "Smiling": s, "Blond_Hair": h, "Black_Hair": -h} for m, s, h in draw]
    write_celeba(folder / f"{seed}", marks, seed=seed)
    return DATASETS.config({"name": "celeba", "path": folder / f"{seed}"})


def clevr(seed: int, folder: Path) -> base.Config:
    scenes = [
        [clevr_object(n - k, seed, 2 * n, 3 * k) for n in range(3 + (k + seed) % 8)]
        for k in range(NUM)
    ]
    (folder / f"{seed}").mkdir()
    write_clevr(folder / f"{seed}", scenes, size=(96, 64), seed=seed)
    return DATASETS.config({"name": "clevr", "path": folder / f"{seed}"})


def phyworld(seed: int, folder: Path) -> base.Config:
    parts = {f"{k:05d}": steady(NUM // 3, 3, seed=3 * seed + k) for k in range(3)}
    write_phyworld(folder / f"{seed}.hdf5", parts, side=32)
    ranges = {"radius": [0.7, 1.0, 1.4], "speed": [1.0, 2.5, 4.0]}
    return DATASETS.config({"name": "phyworld", "path": folder / f"{seed}.hdf5", "ranges": ranges})


def clevrer(seed: int, folder: Path) -> base.Config:
    for k in range(NUM):
        centres = moving(3, [(6 + k, 8), (30 - k, 22)][: 1 + k % 2])
        events = [(0, 1, 1)] if k % 4 == 3 else []
        write_clevrer(folder / f"{seed}", 990 + k, centres, collisions=events, seed=seed)
    return DATASETS.config({"name": "clevrer", "path": folder / f"{seed}"})


def movi(seed: int, folder: Path) -> base.Config:
    for k in range(NUM):
        centres = moving(3, [(5 + k, 8), (24 - k, 22)][: 1 + k % 2])
        events = [(0, k % 2, 2.5), (0, -1, 1.0)]
        write_movi(folder / f"{seed}", f"{k}", centres, collisions=events, seed=seed)
    return DATASETS.config({"name": "movi", "path": folder / f"{seed}"})


def cater(seed: int, folder: Path) -> base.Config:
    for k in range(NUM):
        moves = [("_contain", "Spl_0", 1, 2)] if k % 3 else []
        write_cater(folder / f"{seed}", k, 5 + k % 6, movements=moves, num_frames=4, seed=seed)
    return DATASETS.config({"name": "cater", "path": folder / f"{seed}"})


def covla(seed: int, folder: Path) -> base.Config:
    for k in range(NUM):
        turn_deg, time = (-60.0, 0.0, 60.0)[k % 3], (NOON_MS, MIDNIGHT_MS)[k % 2]
        write_covla(folder / f"{seed}", f"{k:03d}", turn_deg, time, num_frames=4, seed=seed)
    return DATASETS.config({"name": "covla", "path": folder / f"{seed}"})


def scene3d(seed: int, folder: Path) -> base.Config:
    raw = {"name": "scene3d", "style": "clevr", "num_clips": NUM, "seed": seed, "num_frames": 3}
    chosen = {"shape": ["cube", "sphere"], "colour": ["red", "blue"], "motion": ["right", "away"]}
    return DATASETS.config(
        {**raw, "height": 32, "width": 36, "num_objects": [1, 3], "factors": chosen}
    )


def counting(seed: int, folder: Path) -> base.Config:
    raw = {"name": "counting", "num_clips": NUM, "seed": seed, "num_frames": 3, "height": 36}
    return DATASETS.config(
        {**raw, "counts": [0, 1, 4], "clutter": [0, 2], "label": "one", "speed_px": [1.0, 2.0]}
    )


def counting3d(seed: int, folder: Path) -> base.Config:
    raw = {"name": "counting3d", "num_clips": NUM, "seed": seed, "num_frames": 3, "width": 36}
    return DATASETS.config(
        {**raw, "counts": [0, 1, 4], "clutter": [0, 2], "label": "subset", "speed_px": [1.0, 2.0]}
    )


EXAMPLES: dict[str, Callable[[int, Path], base.Config]] = {
    "sprites": sprites,
    "events": events,
    "scene3d": scene3d,
    "folder": folder,
    "mixture": mixture,
    "shapes3d": shapes3d,
    "celeba": celeba,
    "clevr": clevr,
    "phyworld": phyworld,
    "clevrer": clevrer,
    "movi": movi,
    "cater": cater,
    "covla": covla,
    "counting": counting,
    "counting3d": counting3d,
}


NONE, EVERYTHING = torch.tensor([], dtype=torch.int64), torch.arange(NUM)


@dataclass(frozen=True)
class Example:
    """Two configs of one variant, whose clips differ, and what the first one gives: made once."""

    config: base.Config
    other: base.Config

    @functools.cached_property
    def dataset(self) -> Dataset:
        return self.config.build()

    @functools.cached_property
    def clips(self) -> Clips:
        return self.dataset.clips(EVERYTHING)

    @functools.cached_property
    def truth(self) -> Truth | None:
        return self.dataset.truth(EVERYTHING)


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Example]:
    """The example of each variant, by its name."""

    @functools.cache
    def example(name: str) -> Example:
        assert name in EXAMPLES, f"add an example of {name!r} to EXAMPLES"
        place = tmp_path_factory.mktemp(name)
        return Example(*(EXAMPLES[name](seed, place) for seed in (0, 1)))

    return example


@pytest.fixture(params=DATASETS.names())
def example(request: pytest.FixtureRequest, examples: Callable[[str], Example]) -> Example:
    return examples(request.param)


def same_truth(ours: Truth, theirs: Truth) -> None:
    """To the last bit, NaN where NaN is."""
    tensors = theirs.tensors()
    assert tensors.keys() == ours.tensors().keys()
    for name, x in ours.tensors().items():
        assert x.shape == tensors[name].shape, name
        assert np.array_equal(x, tensors[name], equal_nan=x.is_floating_point()), name


def same_clips(ours: Clips, theirs: Clips) -> None:
    """To the last bit, and locations in both or in neither."""
    assert torch.equal(ours.frames, theirs.frames)
    assert torch.equal(ours.classes, theirs.classes) and torch.equal(ours.values, theirs.values)
    assert (ours.locations is None) == (theirs.locations is None)
    if ours.locations is not None and theirs.locations is not None:
        for field in ("points", "velocities", "attributes", "present", "given"):
            assert torch.equal(getattr(ours.locations, field), getattr(theirs.locations, field))


def rows_of(clips: Clips, rows: torch.Tensor) -> Clips:
    locations = None if clips.locations is None else clips.locations[rows]
    return Clips(clips.frames[rows], clips.classes[rows], clips.values[rows], locations)


def test_sizes_and_classes_are_as_stated(example: Example) -> None:
    dataset, clips = example.dataset, example.clips
    n, f, v = len(dataset), len(dataset.factors), dataset.factors.value_size
    assert n == NUM
    assert clips.frames.shape == (n, dataset.num_frames, dataset.height, dataset.width, 3)
    assert clips.frames.dtype == torch.uint8
    assert clips.values.shape == (n, f, v)
    assert dataset.fps > 0
    assert torch.equal(clips.classes, dataset.classes())
    sizes = torch.tensor(dataset.factors.sizes)
    assert ((clips.classes >= 0) & (clips.classes < sizes)).all()
    assert sum(dataset.decoders.values()) in (0, n)


def test_a_clip_is_the_same_in_any_batch_and_order(example: Example) -> None:
    dataset = example.config.build()
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(0))
    for batch in [*order.split(5), torch.tensor([5, 5])]:
        same_clips(dataset.clips(batch), rows_of(example.clips, batch))


def test_truth_is_the_same_in_any_batch(example: Example) -> None:
    """Also what is known and for how many objects there is room, which a batch must not decide."""
    dataset, whole = example.config.build(), example.truth
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(0))
    for batch in [*order.split(5), *torch.arange(3).split(1), NONE]:
        truth = dataset.truth(batch)
        assert (truth is None) == (whole is None)
        if truth is not None and whole is not None:
            same_truth(truth, whole[batch])


def test_labels_are_known_without_making_a_clip(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, dataset = example.clips, example.config.build()
    for name in ("clips", "truth", "clips_and_truth"):
        monkeypatch.setattr(type(dataset), name, None)
    assert torch.equal(dataset.classes(), clips.classes)
    assert torch.equal(dataset.values(), clips.values)


def test_both_at_once_are_the_clips_and_their_truth(example: Example) -> None:
    rows = torch.tensor([NUM - 1, 3, 4])
    clips, truth = example.dataset.clips_and_truth(rows)
    same_clips(clips, rows_of(example.clips, rows))
    assert (truth is None) == (example.truth is None)
    if truth is not None and example.truth is not None:
        same_truth(truth, example.truth[rows])


def test_a_draw_is_the_clips_unless_it_is_random(example: Example) -> None:
    assert not example.dataset.is_random
    rows = torch.tensor([7, 0, NUM - 1])
    drawn = example.dataset.draw(rows, Rng.make(0, "draw", rows))
    same_clips(drawn, rows_of(example.clips, rows))


@pytest.mark.parametrize("name", ["celeba", "clevr", "clevrer", "cater", "folder"])
def test_random_crops_are_cut_from_files_and_keep_the_labels(
    name: str, examples: Callable[[str], Example]
) -> None:
    """Each clip's crop is its own, whatever the batch."""
    fixed = examples(name).config
    height = examples(name).dataset.height // 2
    changes = {"crop": "random", "height": height, "width": height}
    dataset = fixed.model_copy(update=changes).build()
    rng = Rng.make(0, "draw", EVERYTHING)
    drawn, clips = dataset.draw(EVERYTHING, rng), dataset.clips(EVERYTHING)
    assert dataset.is_random
    assert drawn.frames.shape == clips.frames.shape
    assert not torch.equal(drawn.frames, clips.frames)
    assert torch.equal(drawn.classes, clips.classes) and torch.equal(drawn.values, clips.values)
    few = torch.tensor([NUM - 3, 2])
    assert torch.equal(dataset.draw(few, rng[few]).frames, drawn.frames[few])


def test_groups_and_portions_cover_the_clips(example: Example) -> None:
    """Each clip has a group and is in one portion, which says how long it is."""
    dataset = example.dataset
    assert dataset.groups().shape == (NUM,)
    portions = dataset.portions()
    rows = torch.cat([portion.rows for portion in portions])
    assert rows.sort().values.tolist() == list(range(NUM))
    assert all(portion.weight > 0 for portion in portions)
    for portion in portions:
        assert dataset.clips(portion.rows[:2]).frames.shape[1] == portion.num_frames
    assert dataset.num_frames == max(portion.num_frames for portion in portions)
    assert dataset.clips(dataset.longest()[:2]).frames.shape[1] == dataset.num_frames


@pytest.mark.parametrize("name", ["clevrer", "cater", "folder"])
def test_clips_of_one_file_are_one_group(name: str, examples: Callable[[str], Example]) -> None:
    length = examples(name).dataset.num_frames // 3
    changes = {"num_frames": length, "windows": "all"}
    cut = examples(name).config.model_copy(update=changes).build()
    assert cut.groups().shape == (len(cut),)
    sizes = cut.groups().unique(return_counts=True)[1]
    assert len(sizes) == NUM and int(sizes.amin()) >= 3


def test_no_clips_are_an_empty_batch(example: Example) -> None:
    dataset = example.dataset
    clips, truth = dataset.clips_and_truth(NONE)
    f, v = len(dataset.factors), dataset.factors.value_size
    assert clips.frames.shape == (0, dataset.num_frames, dataset.height, dataset.width, 3)
    assert clips.frames.dtype == torch.uint8
    assert clips.classes.shape == (0, f) and clips.values.shape == (0, f, v)
    assert truth is None or len(truth) == 0
    assert dataset.draw(NONE, Rng.make(0, "draw", NONE)).frames.shape == clips.frames.shape


def test_values_lie_in_the_box_of_their_class(example: Example) -> None:
    factors, clips = example.dataset.factors, example.clips
    off = (clips.values - factors.prototypes(clips.classes)).abs()
    assert (off <= factors.spreads(clips.classes) + 1e-5).all()


def test_truth_shows_the_object(example: Example) -> None:
    dataset, clips, truth = example.dataset, example.clips, example.truth
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


def test_the_fingerprint_tells_content(example: Example) -> None:
    other = example.other.build()
    assert example.dataset.fingerprint == example.config.build().fingerprint
    assert example.dataset.fingerprint != other.fingerprint
    theirs = other.clips(EVERYTHING).frames
    assert not (example.clips.frames == theirs).flatten(1).all(1).any()


def test_config_survives_being_stored(example: Example) -> None:
    for config in (example.config, example.other):
        assert DATASETS.config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("index", [-1, NUM])
def test_no_index_beyond_the_end(example: Example, index: int) -> None:
    for ask in (example.dataset.clips, example.dataset.truth, example.dataset.clips_and_truth):
        with pytest.raises(IndexError, match=f"numbered 0 to {NUM - 1}"):
            ask(torch.tensor([index]))
