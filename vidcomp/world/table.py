"""A dataset's table on disk: which file shows what, for rendered clips and for anybody's own.

``factors.csv`` has a line for each clip: its `path`, a class name for each factor, and where a
factor has numbers, the clip's own in ``colour.0``, ``colour.1``, ... A rendered dataset also has
``dataset.json``, which says what the factors are; without it they are read off the table.

Unusual: ``dataset.json`` is written before the first clip and ``factors.csv`` after the last one,
so a folder with the first and not the second is an interrupted render.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vidcomp.config import UserError, nearest
from vidcomp.media import MediaError, write_bytes
from vidcomp.world.factors import Factor, FactorClass, Factors

TABLE = "factors.csv"
MANIFEST = "dataset.json"


@dataclass(frozen=True)
class Manifest:
    """What was rendered. `fingerprint` is that of the dataset that drew the clips."""

    num_clips: int
    num_frames: int
    height: int
    width: int
    fps: float
    fingerprint: str
    factors: Factors

    def save(self, folder: Path) -> None:
        plain = {**asdict(self), "factors": self.factors.to_json()}
        write_bytes(folder / MANIFEST, json.dumps(plain, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> "Manifest | None":
        """The manifest in `folder`, None if there is none."""
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            plain = json.loads(path.read_text())
            return cls(factors=Factors.from_json(plain.pop("factors")), **plain)
        except (ValueError, KeyError, TypeError):
            raise MediaError(f"{path} is damaged; remove it and render the dataset again") from None


@dataclass(frozen=True)
class Table:
    """Clip `i` is the file `paths[i]`, relative to the folder. `values` are padded with 0."""

    factors: Factors
    paths: tuple[str, ...]
    classes: Int64[Tensor, "n f"]
    values: Float[Tensor, "n f v"]

    def save(self, folder: Path) -> None:
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
        rows = _Rows.read(folder / TABLE)
        if factors is None:
            factors = _infer(rows, temporal)
        missing = [name for name in factors.names if name not in rows.columns]
        if missing:
            raise UserError(
                f"{rows.path} has no column {missing[0]!r}; it has {', '.join(rows.columns)}"
            )
        classes = torch.zeros(len(rows), len(factors), dtype=torch.int64)
        values = torch.zeros(len(rows), len(factors), factors.value_size)
        for f, factor in enumerate(factors.items):
            ids = {name: k for k, name in enumerate(factor.class_names)}
            for i, name in enumerate(rows.columns[factor.name]):
                if name not in ids:
                    raise UserError(
                        f"{rows.path}: the {factor.name} of {rows.columns['path'][i]} is {name!r}; "
                        f"{nearest(name, ids)}"
                    )
                classes[i, f] = ids[name]
            for k in range(factor.value_size):
                values[:, f, k] = rows.numbers(f"{factor.name}.{k}")
        return cls(factors, tuple(rows.columns["path"]), classes, values)


@dataclass(frozen=True)
class _Rows:
    """A CSV file by columns, every cell filled."""

    path: Path
    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.columns["path"])

    @classmethod
    def read(cls, path: Path) -> "_Rows":
        try:
            lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path} is not a CSV file in UTF-8: {error}") from None
        header, *body = lines or [[]]
        lines_with_numbers = [(n, line) for n, line in enumerate(body, start=2) if line]
        if "path" not in header or len(set(header)) != len(header):
            raise UserError(
                f"{path}: the first line must name each column once, one of them 'path'"
            )
        if not lines_with_numbers:
            raise UserError(f"{path} lists no clips; add a line for each: {','.join(header)}")
        for n, line in lines_with_numbers:
            if len(line) != len(header) or not all(cell.strip() for cell in line):
                raise UserError(
                    f"{path}, line {n}: needs {len(header)} filled cells ({', '.join(header)})"
                )
        cells = zip(*(line for _, line in lines_with_numbers), strict=True)
        columns = {
            name: [c.strip() for c in column] for name, column in zip(header, cells, strict=True)
        }
        repeated = [name for name, count in Counter(columns["path"]).items() if count > 1]
        if repeated:
            raise UserError(f"{path} lists {repeated[0]!r} more than once")
        return cls(path, columns)

    def numbers(self, column: str) -> Float[Tensor, " n"]:
        if column not in self.columns:
            raise UserError(f"{self.path} has no column {column!r}")
        try:
            return torch.tensor([float(cell) for cell in self.columns[column]])
        except ValueError as error:
            raise UserError(f"{self.path}: column {column!r} holds numbers: {error}") from None


def _infer(rows: _Rows, temporal: Sequence[str]) -> Factors:
    """Classes in alphabetical order; prototype = mean, spread = half the range of their numbers."""
    names = [c for c in rows.columns if c != "path" and "." not in c]
    for column in rows.columns:
        factor, dot, number = column.partition(".")
        if dot and not (factor in names and number.isdecimal()):
            raise UserError(
                f"{rows.path}: column {column!r} holds no factor's numbers, as 'colour.0' does for "
                f"'colour'; if it is a factor, name it {column.replace('.', '_')!r}"
            )
    for name in temporal:
        if name not in names:
            raise UserError(f"temporal names no factor {name!r}; {nearest(name, names)}")
    factors: list[Factor] = []
    for name in names:
        columns = [
            f"{name}.{k}" for k in range(sum(c.startswith(f"{name}.") for c in rows.columns))
        ]
        numbers = [rows.numbers(column) for column in columns]
        labels = rows.columns[name]
        classes: list[FactorClass] = []
        for label in sorted(set(labels)):
            here = torch.tensor([other == label for other in labels])
            of_class = [x[here] for x in numbers]
            prototype = tuple(float(x.mean()) for x in of_class)
            spread = tuple(float(x.amax() - x.amin()) / 2 for x in of_class)
            classes.append(FactorClass(label, prototype, spread))
        factors.append(Factor(name, tuple(classes), temporal=name in temporal))
    if not factors:
        raise UserError(f"{rows.path} has no factors; add a column for each, such as 'shape'")
    return Factors(tuple(factors))
