"""CelebA: photographs of faces with 40 attributes each, as clips of one frame.

Published (Liu and others 2015, https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html) as
``Anno/list_attr_celeba.txt`` and ``Img/img_align_celeba/000001.jpg`` ..., 202 599 of 178 x 218.
Many copies have both straight in the folder, so both places are looked at. The first line of the
text is the number of images, the second the names of the attributes, and each other line a file
with a 1 or -1 for each name, one or two spaces apart.

The classes of a factor are attributes, as in ``{black: Black_Hair, blond: Blond_Hair}``, or that
one is absent, as in ``{female: not Male, male: Male}``. Images that are of no class of some factor,
or of several, are left out. The default is the first paper's (arXiv:2510.03075): in the order of
its bits, 000 is a woman who smiles and has black hair.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from pydantic import field_validator
from torch import Tensor

from vidcomp.config import UserError, nearest
from vidcomp.datasets import base
from vidcomp.datasets.base_files import FileDataset
from vidcomp.media import MediaError
from vidcomp.media.clips import ClipFiles, Reading
from vidcomp.media.notes import parsed
from vidcomp.world.factors import Factor, FactorClass, Factors

LIST, IMAGES = "list_attr_celeba.txt", "img_align_celeba"
LAYOUT = (
    f"expected {LIST} (or Anno/{LIST}) and {IMAGES}/ (or Img/{IMAGES}/) "
    "from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
)
ABSENT = "not "


class Config(base.Config, Reading):
    """`path`: the folder. `factors`: of each factor the classes, each with its attribute."""

    path: Path
    factors: dict[str, dict[str, str]] = {
        "gender": {"female": "not Male", "male": "Male"},
        "smile": {"smiling": "Smiling", "neutral": "not Smiling"},
        "hair": {"black": "Black_Hair", "blond": "Blond_Hair"},
    }

    @field_validator("factors")
    @classmethod
    def _have_classes(cls, factors: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        for name, classes in factors.items():
            if not classes:
                raise ValueError(f"factor {name!r} has no class; example: {{male: Male}}")
        return factors

    def build(self) -> "Dataset":
        return Dataset(self)


class Dataset(FileDataset):
    """The photographs that are of one class of every factor."""

    def __init__(self, config: Config) -> None:
        text = _place(config.path, "Anno", LIST)
        folder = _place(config.path, "Img", IMAGES)
        attributes = parsed(text, _read, expected=LIST)
        classes, chosen = _classes(attributes, config.factors)
        row_of = {attributes.files[row]: row for row in chosen.nonzero()[:, 0].tolist()}
        if not row_of:
            raise UserError(f"{text} has no image that is of one class of each factor")
        missing = row_of.keys() - {path.name for path in folder.iterdir()}
        if missing:
            raise UserError(
                f"{text} lists {len(missing)} images that are not in {folder}, such as "
                f"{min(missing)!r}; {LAYOUT}"
            )
        files = ClipFiles(folder, list(row_of), config)
        rows = torch.tensor([row_of[file] for file in files.paths])
        factors = [
            Factor(name, tuple(map(FactorClass, of_factor)))
            for name, of_factor in config.factors.items()
        ]
        super().__init__(files, Factors(tuple(factors)), classes[rows[files.file_of]])


class _Attributes(NamedTuple):
    """The text, as a table."""

    path: Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    table: Bool[Tensor, "n names"]

    def holds(self, condition: str) -> Bool[Tensor, " n"]:
        """Of which images ``Male`` or ``not Male`` is true."""
        name = condition.removeprefix(ABSENT)
        if name not in self.names:
            raise UserError(f"{self.path} has no attribute {name!r}; {nearest(name, self.names)}")
        column = self.table[:, self.names.index(name)]
        return ~column if condition.startswith(ABSENT) else column


def _classes(
    attributes: _Attributes, factors: dict[str, dict[str, str]]
) -> tuple[Int64[Tensor, "n f"], Bool[Tensor, " n"]]:
    """Class ids by image, and which images are of one class of every factor."""
    ids = torch.zeros(len(attributes.files), len(factors), dtype=torch.int64)
    chosen = torch.ones(len(attributes.files), dtype=torch.bool)
    for f, classes in enumerate(factors.values()):
        of_class = torch.stack([attributes.holds(c) for c in classes.values()], dim=1)
        ids[:, f] = of_class.int().argmax(1)
        chosen &= of_class.sum(1) == 1
    return ids, chosen


def _place(folder: Path, below: str, name: str) -> Path:
    """``FOLDER/NAME`` or, as published, ``FOLDER/BELOW/NAME``."""
    for path in (folder / name, folder / below / name):
        if path.exists():
            return path
    raise UserError(f"there is no {name} in {folder}; {LAYOUT}")


def _read(path: Path) -> _Attributes:
    """The table, or the line that is not as it should be."""
    lines = path.read_text().strip().splitlines()
    if len(lines) < 2 or not lines[0].strip().isdigit():
        raise MediaError(f"{path} does not begin with a count and a line of names; {LAYOUT}")
    names = tuple(lines[1].split())
    files: list[str] = []
    table: list[list[bool]] = []
    for number, line in enumerate(lines[2:], start=3):
        file, *marks = line.split() or [""]
        if len(marks) != len(names) or not {"1", "-1"}.issuperset(marks):
            raise MediaError(
                f"{path}, line {number}: a file and {len(names)} times 1 or -1 are expected, got "
                f"{line[:60]!r}; copy the file again"
            )
        files.append(file)
        table.append([mark == "1" for mark in marks])
    if len(files) != int(lines[0]):
        raise MediaError(
            f"{path} announces {int(lines[0])} images but lists {len(files)}; it is cut off: "
            "copy it again"
        )
    return _Attributes(path, tuple(files), names, torch.tensor(table).reshape(-1, len(names)))
