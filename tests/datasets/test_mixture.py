"""A mixture is its parts: their clips, the factors that all share, and their weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from published import write_celeba
from tiny import generator_run, metrics, tokenizer_run

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, Dataset
from vidcomp.datasets.mixture import shared_factors
from vidcomp.pipeline import ClipFormat, Pipeline
from vidcomp.runs import rows_for
from vidcomp.storage import store
from vidcomp.training.tasks import train

SHAPES, COLOURS = ["circle", "triangle"], ["red", "blue"]
SIZES = {"size": ["large", "small"]}


def sprites(**changed: Any) -> dict[str, Any]:
    raw = {"name": "sprites", "num_clips": 40, "num_frames": 5, "height": 16, "width": 16}
    factors = {"shape": SHAPES, "colour": COLOURS, "motion": ["right", "up"]}
    return {**raw, "factors": factors, **changed}


def images(**changed: Any) -> dict[str, Any]:
    factors = {"colour": COLOURS, "shape": SHAPES, "size": ["large", "small"]}
    return sprites(num_frames=1, factors=factors, num_clips=30, **changed)


def mixture(*parts: dict[str, Any], weights: tuple[float, ...] | None = None) -> Dataset:
    weights = weights or (1.0,) * len(parts)
    pairs = zip(parts, weights, strict=True)
    raw = [{"dataset": part, "weight": weight} for part, weight in pairs]
    return DATASETS.config({"name": "mixture", "parts": raw}).build()


def test_clips_are_those_of_the_parts() -> None:
    mixed = mixture(images(), sprites(), sprites(seed=1))
    parts = [DATASETS.config(raw).build() for raw in (images(), sprites(), sprites(seed=1))]
    assert len(mixed) == 110
    of_clips = mixed.clips(torch.tensor([109, 30, 69, 70]))
    expected = [parts[k].clips(torch.tensor([i])) for k, i in ((2, 39), (1, 0), (1, 39), (2, 0))]
    assert torch.equal(of_clips.frames, torch.cat([clips.frames for clips in expected]))
    of_images = mixed.clips(torch.tensor([29, 3]))
    assert torch.equal(of_images.frames, parts[0].clips(torch.tensor([29, 3])).frames)
    with pytest.raises(IndexError, match="numbered 0 to 109"):
        mixed.clips(torch.tensor([110]))


def test_labels_follow_the_shared_factors() -> None:
    """The images name colour first: ids of a clip of the other part stand in another column."""
    mixed = mixture(images(), sprites())
    assert mixed.factors.names == ("colour", "shape")
    own = DATASETS.config(sprites()).build()
    rows = torch.arange(40)
    found, clips = mixed.clips(30 + rows), own.clips(rows)
    assert torch.equal(found.classes, clips.classes[:, [1, 0]])
    assert torch.equal(found.classes, mixed.classes()[30:])
    v = mixed.factors.value_size
    assert torch.equal(found.values, clips.values[:, [1, 0], :v])
    assert torch.equal(found.values, mixed.values()[30:])
    assert not clips.values[:, [1, 0], v:].any(), "what was cut off was padding"


def test_truth_is_what_all_parts_know_whatever_the_batch(tmp_path: Path) -> None:
    """Sprites are alone and have no place in a world; the solids of a 3-D scene are three."""
    solids = {"name": "scene3d", "style": "clevr", "num_objects": [3, 3], "factors": SIZES}
    solids |= {"num_clips": 4, "num_frames": 5, "height": 16, "width": 16}
    mixed = mixture(sprites(num_clips=4), solids)
    whole = mixed.truth(torch.arange(8))
    assert whole is not None and whole.present.sum(1).tolist() == [1] * 4 + [3] * 4
    assert whole.segments is not None and whole.positions is None
    for batch in torch.tensor([[0, 1], [4, 5], [7, 2]]):
        truth = mixed.truth(batch)
        assert truth is not None and truth.present.equal(whole.present[batch])
        assert truth.tensors().keys() == whole.tensors().keys()
        assert truth.positions_px.equal(whole.positions_px[batch])

    write_celeba(tmp_path, [{"Male": 1, "Smiling": 1, "Black_Hair": 1}])
    faces = {"name": "celeba", "path": tmp_path, "height": 16, "width": 16}
    some_unknown = mixture(sprites(num_frames=1, factors={"shape": SHAPES}), faces)
    assert some_unknown.truth(torch.tensor([0])) is None
    assert some_unknown.truth(torch.tensor([40])) is None


def test_locations_are_there_if_all_parts_have_them_whatever_the_batch() -> None:
    few = {"name": "counting", "num_clips": 8, "counts": [1, 2], "height": 16, "width": 16}
    many = {**few, "counts": [0, 3], "radius_px": 1.5}
    mixed = mixture(few, many)
    whole = mixed.clips(torch.arange(16)).locations
    assert whole is not None and whole.present.shape == (16, 3)
    own = DATASETS.config(many).build().clips(torch.arange(8)).locations
    assert own is not None and torch.equal(whole.points[8:], own.points)
    for batch in torch.tensor([[0, 1], [9, 15], [12, 3]]):
        found = mixed.clips(batch).locations
        assert found is not None and torch.equal(found.points, whole.points[batch])
        assert torch.equal(found.given, whole.given[batch])
        assert torch.equal(found.attributes, whole.attributes[batch])

    some_not = mixture(few, sprites(num_frames=1, factors={"shape": SHAPES}))
    other_looks = mixture(few, {**many, "shapes": ["circle", "square"]})
    for without in (some_not, other_looks):
        for batch in torch.tensor([[0, 1], [9, 15], [12, 3]]):
            assert without.clips(batch).locations is None


def test_no_clips_have_the_longest_length() -> None:
    mixed = mixture(sprites(), images())
    nothing = mixed.clips(torch.tensor([], dtype=torch.int64))
    assert nothing.frames.shape == (0, 5, 16, 16, 3) and nothing.classes.shape == (0, 2)


def test_what_not_all_share_is_dropped_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    mixture(images(), sprites())
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "motion (not every part has it)" in said and "size (not every part has it)" in said
    assert said.endswith("kept: colour, shape\n")

    other = sprites(factors={"shape": ["circle", "square"], "colour": ["red", "blue"]})
    mixed = mixture(sprites(), other)
    assert mixed.factors.names == ("colour",)
    assert "shape (its classes are not the same in every part)" in capsys.readouterr().out

    mixed = mixture(sprites(), sprites(seed=1))
    assert mixed.factors.names == ("shape", "colour", "motion")
    assert capsys.readouterr().out == ""


def test_an_image_of_a_moving_thing_shows_no_motion() -> None:
    """Though its table says how it moves: a folder of clips may be read as images."""
    clips, first_frames = (DATASETS.config(sprites()).build() for _ in range(2))
    first_frames.num_frames = 1
    shared = shared_factors([clips, first_frames])
    assert shared.factors.names == ("shape", "colour")
    assert shared.dropped == {"motion": "an image cannot show it"}


def test_no_shared_factor_is_unconditional(capsys: pytest.CaptureFixture[str]) -> None:
    mixed = mixture(
        sprites(factors={"shape": SHAPES}, num_frames=1), sprites(factors={"colour": COLOURS})
    )
    assert len(mixed.factors) == 0 and mixed.classes().shape == (80, 0)
    assert mixed.clips(torch.tensor([50])).values.shape == (1, 0, 0)
    assert "kept: none, so it is unconditional" in capsys.readouterr().out


def test_one_length_a_call() -> None:
    mixed = mixture(images(), sprites())
    for ask in (mixed.clips, mixed.truth):
        with pytest.raises(UserError, match="clips of 1 and 5 frames do not go into one batch"):
            ask(torch.tensor([0, 30]))
    assert torch.equal(mixed.longest(), torch.arange(30, 70))
    assert mixed.clips(mixed.longest()).frames.shape[1] == mixed.num_frames == 5
    assert ClipFormat.of(mixed).size == (5, 16, 16)


def test_sizes_must_agree() -> None:
    with pytest.raises(UserError, match="are 16x16 and 24x16, and must have one height and width"):
        mixture(sprites(), sprites(height=24))


def test_a_mixture_may_be_a_part() -> None:
    inner = {
        "name": "mixture",
        "parts": [{"dataset": images(), "weight": 1}, {"dataset": sprites(), "weight": 3}],
    }
    mixed = mixture(inner, sprites(seed=1), weights=(2, 6))
    weights = [portion.weight for portion in mixed.portions()]
    assert weights == pytest.approx([0.5, 1.5, 6])
    assert [portion.num_frames for portion in mixed.portions()] == [1, 5, 5]
    everything = torch.cat([portion.rows for portion in mixed.portions()])
    assert torch.equal(everything, torch.arange(110))
    flat = mixture(images(), sprites(), sprites(seed=1))
    rows = torch.tensor([100, 31])
    assert torch.equal(mixed.clips(rows).frames, flat.clips(rows).frames)


def test_what_a_part_keeps_for_scoring_the_mixture_keeps_too() -> None:
    """So a judge fitted on one part has not seen what the mixture is scored on."""
    mixed, part = mixture(images(), sprites()), DATASETS.config(sprites()).build()
    scoring = rows_for("scoring", mixed)
    assert torch.equal(scoring[scoring >= 30] - 30, rows_for("scoring", part))


def test_a_file_that_two_parts_read_is_trained_on_or_scored(tmp_path: Path) -> None:
    """Clips in the order of a table, and their first frames in that of the alphabet."""
    store(DATASETS.config(sprites(num_frames=2)), tmp_path)
    header, *lines = (tmp_path / "factors.csv").read_text().splitlines()
    (tmp_path / "factors.csv").write_text("\n".join([header, *reversed(lines)]))
    folder = {"name": "folder", "path": tmp_path}
    raw = [folder, {**folder, "labels": "none", "num_frames": 1}]
    mixed = mixture(*raw)
    read = [DATASETS.config(part).build().files for part in raw]
    names = [files.paths[k] for files in read for k in files.file_of.tolist()]
    assert names[:40] == names[:39:-1]
    training, scoring = (
        {names[i] for i in rows_for(purpose, mixed).tolist()} for purpose in ("training", "scoring")
    )
    assert training and scoring and not training & scoring


def test_truth_comes_in_the_order_asked_for() -> None:
    mixed = mixture(sprites(), sprites(seed=1))
    rows = torch.tensor([45, 2, 41])
    truth, alone = mixed.truth(rows), [mixed.truth(row[None]) for row in rows]
    assert truth is not None
    for i, one in enumerate(alone):
        assert one is not None and torch.equal(truth.positions_px[i], one.positions_px[0])


MIXED = {
    "dataset": {
        "name": "mixture",
        "parts": [{"dataset": images(), "weight": 0.4}, {"dataset": sprites(), "weight": 0.6}],
    },
    "split": {"novel": {"shape": ["triangle"], "colour": ["blue"]}, "max_novel": 1},
}


@pytest.mark.parametrize("names", [("fsq", "maskgit"), ("kl", "flow")])
def test_tokenizer_and_generator_train_on_images_and_clips(
    names: tuple[str, str], tmp_path: Path
) -> None:
    """Both lengths, twice the same; the generator from its cache as live; it samples clips."""
    tokenizer, objective = names
    folders = [train(tokenizer_run(tokenizer, data=MIXED), tmp_path / f"t{i}") for i in range(2)]
    assert metrics(folders[0]) == metrics(folders[1])
    assert metrics(folders[0])[-1]["eval/psnr_db"] > 0

    runs = {
        name: train(
            generator_run(folders[0], objective, data=MIXED, jepa=True, cache=cache, **options),
            tmp_path / name,
        )
        for name, cache, options in (
            ("memory", "memory", {}),
            ("again", "memory", {"num_workers": 2}),
            ("live", "none", {}),
        )
    }
    assert metrics(runs["memory"]) == metrics(runs["again"])
    for ours, theirs in zip(metrics(runs["memory"]), metrics(runs["live"]), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    pipeline = Pipeline.load(runs["memory"])
    clip = pipeline.generate({"colour": "blue", "shape": "triangle"}, num_steps=2)
    assert clip.shape == (1, 3, 5, 16, 16)


def test_a_generator_learns_from_a_mixture_without_factors(tmp_path: Path) -> None:
    parts = [
        {"dataset": sprites(factors={"shape": SHAPES}, num_frames=1)},
        {"dataset": sprites(factors={"colour": COLOURS})},
    ]
    data = {"dataset": {"name": "mixture", "parts": parts}, "split": {}}
    tokenizer = train(tokenizer_run(data=data, steps=2), tmp_path / "fsq")
    run = train(generator_run(tokenizer, data=data, steps=2), tmp_path / "maskgit")
    assert Pipeline.load(run).generate({}, num_steps=2).shape == (1, 3, 5, 16, 16)


def test_parts_that_move_have_one_rate() -> None:
    with pytest.raises(UserError, match=r"have 8 and 24 frames per second.*set fps where"):
        mixture(sprites(fps=8.0), sprites(fps=24.0))
    assert mixture(sprites(fps=24.0), images(fps=8.0)).fps == 24  # nothing moves in a picture
    mixture(sprites(fps=30.0), sprites(fps=30000 / 1001))
