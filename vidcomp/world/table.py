"""A dataset's table on disk: which file shows what, for rendered clips and for anybody's own.

``factors.csv`` (or ``.jsonl``, ``.parquet``) has a line for each clip: its `path`, a class name for
each factor, and where a factor has numbers, the clip's own in ``colour.0``, ``colour.1``, ... A
rendered dataset also has ``dataset.json``, which says what the factors are; without it they are
read off the table. Without a table, the folder that a clip lies in may be its label.

Unusual: ``dataset.json`` is written before the first clip and ``factors.csv`` after the last one,
so a folder with the first and not the second is an interrupted render.
"""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError, nearest
from vidcomp.media import write_bytes
from vidcomp.world.columns import SUFFIXES, Columns
from vidcomp.world.factors import Factor, FactorClass, Factors

TABLE = "factors.csv"
LABEL = "label"
"""The one factor of clips whose folder is their label."""


@dataclass(frozen=True)
class Table:
    """Clip `i` is the file `paths[i]`, relative to the folder. `values` are padded with 0."""

    factors: Factors
    paths: tuple[str, ...]
    classes: Int64[Tensor, "n f"]
    values: Float[Tensor, "n f v"]

    def __getitem__(self, rows: Int64[Tensor, " m"]) -> "Table":
        paths = tuple(self.paths[i] for i in rows.tolist())
        return Table(self.factors, paths, self.classes[rows], self.values[rows])

    @property
    def digest(self) -> str:
        """Changes when the factors or anything of a clip does, and not with the format."""
        seen = hashlib.sha256(json.dumps([self.factors.to_json(), self.paths]).encode())
        for x in (self.classes, self.values):
            seen.update(x.contiguous().numpy().tobytes())
        return seen.hexdigest()

    def save(self, folder: Path) -> None:
        """As CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        items = self.factors.items
        columns = [f"{f.name}.{k}" for f in items for k in range(f.value_size)]
        writer.writerow(["path", *self.factors.names, *columns])
        for path, ids, values in zip(
            self.paths, self.classes.tolist(), self.values.tolist(), strict=True
        ):
            names = [f.class_names[k] for f, k in zip(items, ids, strict=True)]
            numbers = [x for f, row in zip(items, values, strict=True) for x in row[: f.value_size]]
            writer.writerow([path, *names, *(f"{x:.9g}" for x in numbers)])  # 9 digits are exact
        write_bytes(folder / TABLE, text.getvalue().encode())

    @classmethod
    def load(
        cls, folder: Path, *, factors: Factors | None, temporal: Sequence[str] = ()
    ) -> "Table":
        """The table in `folder`, its factors inferred unless they are given."""
        columns = Columns.read(find_table(folder) or folder / TABLE)
        if factors is None:
            factors = _inferred(columns, temporal)
        missing = [name for name in factors.names if name not in columns.cells]
        if missing:
            raise UserError(
                f"{columns.path} has no column {missing[0]!r}; it has {', '.join(columns.cells)}"
            )
        paths = tuple(columns.cells["path"])
        classes = torch.zeros(len(paths), len(factors), dtype=torch.int64)
        values = torch.zeros(len(paths), len(factors), factors.value_size)
        for f, factor in enumerate(factors.items):
            ids = {name: k for k, name in enumerate(factor.class_names)}
            names = columns.cells[factor.name]
            for path, name in zip(paths, names, strict=True):
                if name not in ids:
                    raise UserError(
                        f"{columns.path}: the {factor.name} of {path} is {name!r}; "
                        f"{nearest(name, ids)}"
                    )
            classes[:, f] = torch.tensor([ids[name] for name in names])
            for k in range(factor.value_size):
                values[:, f, k] = columns.numbers(f"{factor.name}.{k}")
        return cls(factors, paths, classes, values)

    @classmethod
    def of_folders(cls, folder: Path, paths: Sequence[str]) -> "Table":
        """One factor: the name of the folder that each clip lies in, as in ImageFolder."""
        labels = [path.rpartition("/")[0].rpartition("/")[2] for path in paths]
        if "" in labels:
            raise UserError(
                f"{folder / paths[labels.index('')]} lies in no folder within {folder} whose name "
                "could be its label; move it into one, or set labels=none"
            )
        names = sorted(set(labels))
        ids = {name: k for k, name in enumerate(names)}
        factors = Factors((Factor(LABEL, tuple(FactorClass(name) for name in names)),))
        classes = torch.tensor([ids[label] for label in labels])[:, None]
        return cls(factors, tuple(paths), classes, torch.zeros(len(paths), 1, 0))

    @classmethod
    def unlabelled(cls, paths: Sequence[str]) -> "Table":
        """No factors at all."""
        n = len(paths)
        classes = torch.zeros(n, 0, dtype=torch.int64)
        return cls(Factors(()), tuple(paths), classes, torch.zeros(n, 0, 0))


def find_table(folder: Path) -> Path | None:
    """The table in `folder`, None if there is none; raises UserError if there are several."""
    stem = Path(TABLE).stem
    found = [path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise UserError(f"{folder} has {names}; keep one of them")
    return found[0] if found else None


def _inferred(columns: Columns, temporal: Sequence[str]) -> Factors:
    """Classes in alphabetical order; their box is as wide as their numbers range."""
    names = [c for c in columns.cells if c != "path" and "." not in c]
    for column in columns.cells:
        factor, dot, number = column.partition(".")
        if dot and not (factor in names and number.isdecimal()):
            raise UserError(
                f"{columns.path}: column {column!r} holds no factor's numbers, as 'colour.0' does "
                f"for 'colour'; if it is a factor, name it {column.replace('.', '_')!r}"
            )
    for name in temporal:
        if name not in names:
            raise UserError(f"temporal names no factor {name!r}; {nearest(name, names)}")
    if not names:
        raise UserError(
            f"{columns.path} has no factors; add a column for each, such as 'shape', or set "
            "labels=none"
        )
    return Factors(tuple(_factor(columns, name, temporal=name in temporal) for name in names))


def _factor(columns: Columns, name: str, *, temporal: bool) -> Factor:
    size = sum(column.startswith(f"{name}.") for column in columns.cells)
    numbers = [columns.numbers(f"{name}.{k}") for k in range(size)]
    rows_of: dict[str, list[int]] = {}
    for row, label in enumerate(columns.cells[name]):
        rows_of.setdefault(label, []).append(row)
    classes: list[FactorClass] = []
    for label in sorted(rows_of):
        # In float64 both are exact: the box holds every clip, and one number is its own middle.
        ends = [x[rows_of[label]].double().aminmax() for x in numbers]
        prototype = tuple(float(low + high) / 2 for low, high in ends)
        spread = tuple(float(high - low) / 2 for low, high in ends)
        classes.append(FactorClass(label, prototype, spread))
    return Factor(name, tuple(classes), temporal=temporal)
