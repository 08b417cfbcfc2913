"""CelebA as published: a text of counts, names and signs, and the paper's eight combinations."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published import CELEBA_NAMES, write_celeba

from vidcomp.config import UserError
from vidcomp.datasets.base import DATASETS, DataRoot, Dataset

CONFIG = Path(__file__).parents[2] / "configs" / "data" / "celeba.yaml"


def reader(path: Path, **settings: object) -> Dataset:
    return DATASETS.config({"name": "celeba", "path": path, **settings}).build()


def marks(male: int, neutral: int, blond: int) -> dict[str, int]:
    """Of the combination with these bits, in the order of the paper's code."""
    hair = {"Blond_Hair": 1} if blond else {"Black_Hair": 1}
    return {"Male": 2 * male - 1, "Smiling": 1 - 2 * neutral, "Young": 1, **hair}


BITS = list(itertools.product((0, 1), repeat=3))


@pytest.mark.parametrize("nested", [True, False])
def test_the_papers_bits_and_split(tmp_path: Path, nested: bool) -> None:
    write_celeba(tmp_path, [marks(*bits) for bits in BITS], nested=nested)
    data = DataRoot.load(CONFIG, [f"data.dataset.path={tmp_path}"]).data
    dataset = data.dataset.build()
    assert dataset.factors.names == ("gender", "smile", "hair")
    assert dataset.classes().tolist() == [list(bits) for bits in BITS]
    split = data.split.build(dataset.factors)
    assert split.levels(dataset.classes(), dataset.values()).tolist() == [
        max(sum(bits) - 1, 0) for bits in BITS
    ]
    assert dataset.factors.describe(split.combinations_of("level-2")[0]) == "male neutral blond"
    frames = dataset.clips(torch.arange(8)).frames
    assert frames.shape == (8, 1, 48, 48, 3)


def test_pictures_of_no_class_or_of_two_are_left_out(tmp_path: Path) -> None:
    brown = {"Male": 1, "Brown_Hair": 1}
    both = {"Black_Hair": 1, "Blond_Hair": 1}
    write_celeba(tmp_path, [brown, marks(1, 0, 1), both, {}, marks(0, 1, 0)])
    dataset = reader(tmp_path)
    assert dataset.classes().tolist() == [[1, 0, 1], [0, 1, 0]]
    assert (dataset.num_frames, dataset.height, dataset.width) == (1, 218, 178)
    images = tmp_path / "Img" / "img_align_celeba"
    for frame, name in zip(dataset.clips(torch.arange(2)).frames, ("02", "05"), strict=True):
        true = np.asarray(Image.open(images / f"0000{name}.jpg")).astype(float)
        assert np.abs(frame[0].numpy() - true).mean() < 3
    assert dataset.values().shape == (2, 3, 0)
    assert dataset.truth(torch.arange(2)) is None


def test_factors_of_any_attributes(tmp_path: Path) -> None:
    write_celeba(tmp_path, [{"Bald": 1}, {"Young": 1}, {"Gray_Hair": 1}, {"Brown_Hair": 1}])
    factors = {
        "age": {"young": "Young", "old": "not Young"},
        "hair": {"grey": "Gray_Hair", "none": "Bald", "brown": "Brown_Hair"},
    }
    dataset = reader(tmp_path, factors=factors)
    assert dataset.factors.sizes == (2, 3)
    assert dataset.classes().tolist() == [[1, 1], [1, 0], [1, 2]]
    with pytest.raises(UserError, match="no attribute 'Yong'; did you mean 'Young'"):
        reader(tmp_path, factors={"age": {"young": "Yong"}})
    with pytest.raises(ValueError, match="factor 'age' has no class"):
        reader(tmp_path, factors={"age": {}})
    with pytest.raises(UserError, match="no image that is of one class of each factor"):
        reader(tmp_path, factors={"hat": {"hat": "Wearing_Hat"}})


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no list_attr_celeba\.txt in .*Anno/.*mmlab\.ie\.cuhk"):
        reader(tmp_path)
    write_celeba(tmp_path, [marks(*bits) for bits in BITS])
    text = tmp_path / "Anno" / "list_attr_celeba.txt"
    lines = text.read_text().splitlines()
    for wrong, message in (
        (lines[:-1], "announces 8 images but lists 7; it is cut off"),
        ([*lines[:5], lines[5][:-2], *lines[6:]], "line 6: a file and 40 times 1 or -1"),
        ([*lines[:5], "", *lines[6:]], "line 6: a file and 40 times 1 or -1"),
        ([*lines[:5], lines[5].replace("-1", "0"), *lines[6:]], "line 6: .* got '000004.jpg"),
        (["image_id,Male", "000001.jpg,1"], "does not begin with a count and a line of names"),
        (["", ""], "does not begin with a count"),
    ):
        text.write_text("\n".join(wrong) + "\n")
        with pytest.raises(UserError, match=message):
            reader(tmp_path)
    text.write_text("\n".join(lines))  # without a line break at the end
    assert len(reader(tmp_path)) == 8
    (tmp_path / "Img" / "img_align_celeba" / "000003.jpg").unlink()
    with pytest.raises(UserError, match=r"lists 1 images that are not in .*, such as '000003"):
        reader(tmp_path)


def test_random_crops_are_for_training_only(tmp_path: Path) -> None:
    from vidcomp.seeding import Rng

    write_celeba(tmp_path, [marks(*bits) for bits in BITS])
    dataset = reader(tmp_path, height=48, width=48, crop="random")
    indices = torch.arange(8)
    rng = Rng.make(0, "crop", indices)
    assert dataset.is_random and not reader(tmp_path).is_random
    drawn = dataset.draw(indices, rng)
    assert torch.equal(drawn.frames, dataset.draw(indices, rng).frames)
    assert not torch.equal(drawn.frames, dataset.clips(indices).frames)
    assert torch.equal(drawn.classes, dataset.clips(indices).classes)


def test_the_names_are_forty() -> None:
    assert len(CELEBA_NAMES.split()) == 40
