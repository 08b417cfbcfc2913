"""CLEVR as published and as generated: where objects are, at any size, under any name of a key."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from published import clevr_object, write_clevr

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, DataRoot, Dataset
from vidcomp.datasets.clevr import ATTRIBUTES
from vidcomp.datasets.clevr import Dataset as Clevr

CONFIG = Path(__file__).parents[2] / "configs" / "data" / "clevr.yaml"


def reader(path: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "clevr", "path": path, **settings}).build()


def objects(count: int, size: tuple[int, int] = (480, 320)) -> list[dict[str, object]]:
    width, height = size
    return [
        clevr_object(k - 1.5, 2.0 - k, (k + 1) * width // 12, (k + 1) * height // 14)
        for k in range(count)
    ]


def test_the_count_is_the_factor(tmp_path: Path) -> None:
    write_clevr(tmp_path, [objects(k) for k in (3, 10, 4, 3)])
    dataset = reader(tmp_path)
    (factor,) = dataset.factors.items
    assert (factor.name, factor.kind) == ("count", "ordinal")
    assert factor.class_names == tuple(str(k) for k in range(3, 11))
    assert dataset.classes().tolist() == [[0], [7], [1], [0]]
    assert dataset.values()[:, 0, 0].tolist() == [3, 10, 4, 3]
    assert (dataset.num_frames, dataset.height, dataset.width) == (1, 320, 480)


def test_counts_choose_the_pictures(tmp_path: Path) -> None:
    write_clevr(tmp_path, [objects(k) for k in (0, 1, 5, 2)], part="new")
    dataset = reader(tmp_path, part="new", counts=(0, 2))
    assert dataset.values()[:, 0, 0].tolist() == [0, 1, 2]
    truth = dataset.truth(torch.arange(3))
    assert truth is not None and truth.present.sum(1).tolist() == [0, 1, 2]
    empty = reader(tmp_path, part="new", counts=(0, 0)).truth(torch.tensor([0]))
    assert empty is not None and empty.positions_px.shape == (1, 1, 0, 2)
    with pytest.raises(UserError, match="no scene of 6 to 7 objects"):
        reader(tmp_path, part="new", counts=(6, 7))
    with pytest.raises(ValueError, match="the least, then the most"):
        reader(tmp_path, counts=(4, 3))


@pytest.mark.parametrize("size", [(480, 320), (320, 240)])
def test_positions_point_at_the_pixels_whatever_the_size(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """A black disc is drawn where each pixel_coords point: the generator counts from the corner of
    the picture, ``int(round(x * width))``, which is half a pixel before the centre of pixel 0."""
    write_clevr(tmp_path, [objects(3, size), objects(5, size)], size=size)
    rows, columns = torch.arange(size[1])[:, None], torch.arange(size[0])
    for k, count in enumerate((3, 5)):
        picture = torch.full((size[1], size[0], 3), 255, dtype=torch.uint8)
        for thing in objects(count, size):
            px, py, _ = thing["pixel_coords"]
            picture[(rows + 0.5 - py) ** 2 + (columns + 0.5 - px) ** 2 <= 36] = 0
        image = tmp_path / "images" / "train" / f"CLEVR_train_{k:06d}.png"
        Image.fromarray(picture.numpy()).save(image)
    for wanted in ({}, {"height": 128, "width": 160}):
        dataset = reader(tmp_path, **wanted)
        clips, truth = dataset.clips(torch.arange(2)), dataset.truth(torch.arange(2))
        assert truth is not None and truth.positions is not None
        assert truth.positions_px.shape == (2, 1, 10, 2)
        for row, count in enumerate((3, 5)):
            for n in range(count):
                x, y = truth.positions_px[row, 0, n].round().int().tolist()
                if 0 <= x < dataset.width:  # the sides are cropped
                    assert clips.frames[row, 0, y, x].max() < 30, (row, n)
            if not wanted:  # the mean of all that is black is that of the discs' middles
                black = torch.nonzero(clips.frames[row, 0, :, :, 0] == 0).flip(1).float().mean(0)
                assert torch.allclose(truth.positions_px[row, 0, :count].mean(0), black, atol=1e-3)
            assert truth.present[row].tolist() == [True] * count + [False] * (10 - count)
            assert truth.positions[row, 0, :count, 0].tolist() == [k - 1.5 for k in range(count)]
            assert not truth.positions_px[row, 0, count:].any()


def test_the_names_of_unused_keys_do_not_matter(tmp_path: Path) -> None:
    """The release's README says `relations`, its files and the generator `relationships`."""
    for relations in ("relations", "relationships"):
        (tmp_path / relations).mkdir()
        write_clevr(tmp_path / relations, [objects(3), objects(4)], relations=relations)
    one, other = (reader(tmp_path / name) for name in ("relations", "relationships"))
    assert torch.equal(one.classes(), other.classes())
    assert one.fingerprint == other.fingerprint


def test_attributes_of_objects(tmp_path: Path) -> None:
    first = clevr_object(0, 0, 100, 100, shape="cylinder", color="yellow", material="metal")
    second = clevr_object(1, 0, 200, 100, size="small", color="red")
    write_clevr(tmp_path, [[first, second, second], [second] * 4])
    dataset = reader(tmp_path)
    assert isinstance(dataset, Clevr)
    ids = dataset.attributes(torch.tensor([1, 0]))
    assert ids["shape"].shape == (2, 10) and set(ids) == set(ATTRIBUTES)
    named = {name: ATTRIBUTES[name][int(of_all[1, 0])] for name, of_all in ids.items()}
    assert named == {k: first[k] for k in ATTRIBUTES}
    assert ids["size"][0].tolist() == [0] * 4 + [-1] * 6


def test_the_test_part_has_no_scenes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test images of CLEVR have no scenes; legal: train, val"):
        reader(tmp_path, part="test")
    write_clevr(tmp_path, [objects(3), objects(4)])
    extra = tmp_path / "images" / "train" / "CLEVR_train_000002.png"
    extra.write_bytes((extra.parent / "CLEVR_train_000000.png").read_bytes())
    with pytest.raises(UserError, match=r"1 images in .*have no scene in .*train_000002\.png"):
        reader(tmp_path)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no .*CLEVR_train_scenes\.json; expected .*CLEVR_v1\.0"):
        reader(tmp_path)
    write_clevr(tmp_path, [objects(3), objects(4)])
    notes = tmp_path / "scenes" / "CLEVR_train_scenes.json"
    text = notes.read_text()
    for wrong, message in (
        (text[:-20], r"CLEVR_train_scenes\.json cannot be read"),
        (text.replace("3d_coords", "coords"), "lacks '3d_coords'; expected scenes of CLEVR"),
        (text.replace("cube", "cone"), "an object of shape 'cone'; .*legal: cube, cylinder"),
        ("[]", r"CLEVR_train_scenes\.json cannot be read"),
    ):
        notes.write_text(wrong)
        with pytest.raises(UserError, match=message):
            reader(tmp_path)
    notes.write_text(text)
    (tmp_path / "images" / "train" / "CLEVR_train_000001.png").unlink()
    with pytest.raises(UserError, match=r"1 scenes of .* have no image in .*train_000001\.png"):
        reader(tmp_path)


def test_the_shipped_config_holds_counts_out(tmp_path: Path) -> None:
    write_clevr(tmp_path, [objects(k) for k in range(3, 11)])
    data = DataRoot.load(CONFIG, [f"data.dataset.path={tmp_path}"]).data
    dataset = data.dataset.build()
    split = data.split.build(dataset.factors)
    assert split.seen(dataset.classes(), dataset.values()).tolist() == [True] * 4 + [False] * 4
