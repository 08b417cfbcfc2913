"""A table file by its columns, every cell filled, as text: CSV, JSON lines or Parquet.

Which it is, the suffix says. Parquet needs pyarrow, an extra. Numbers and truth values become what
JSON writes for them, so that a table says the same in each format.
"""

import csv
import importlib.util
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidcomp.config import UserError, first_line

SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Columns:
    """The cells of `path`, one list of them a column."""

    path: Path
    cells: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.cells["path"])

    @classmethod
    def read(cls, path: Path) -> "Columns":
        """Raises UserError for a table with gaps, without a column 'path' or without clips."""
        match path.suffix:
            case ".csv":
                rows = _read_csv(path)
            case ".jsonl":
                rows = _read_jsonl(path)
            case ".parquet":
                rows = _read_parquet(path)
            case _:
                raise UserError(f"{path} is no table; legal: {', '.join(SUFFIXES)}")
        header = rows.header
        if "path" not in header or len(set(header)) != len(header):
            raise UserError(
                f"{path}: the first line must name each column once, one of them 'path'"
            )
        if not rows.cells:
            raise UserError(f"{path} lists no clips; add a line for each: {','.join(header)}")
        for line, cells in zip(rows.lines, rows.cells, strict=True):
            if len(cells) != len(header) or not all(map(str.strip, cells)):
                raise UserError(
                    f"{path}, line {line}: needs {len(header)} filled cells ({', '.join(header)})"
                )
        columns = zip(header, zip(*rows.cells, strict=True), strict=True)
        found = cls(path, {name: [*map(str.strip, column)] for name, column in columns})
        names = found.cells["path"]
        if len(set(names)) < len(names):
            repeated = next(name for name, count in Counter(names).items() if count > 1)
            raise UserError(f"{path} lists {repeated!r} more than once")
        return found

    def numbers(self, column: str) -> Float[Tensor, " n"]:
        if column not in self.cells:
            raise UserError(f"{self.path} has no column {column!r}")
        try:
            numbers = torch.tensor([float(cell) for cell in self.cells[column]])
        except ValueError as error:
            raise UserError(f"{self.path}: column {column!r} holds numbers: {error}") from None
        if not numbers.isfinite().all():
            row = int(numbers.isfinite().long().argmin())
            cell = self.cells[column][row]
            raise UserError(f"{self.path}: column {column!r} holds numbers: not {cell!r}")
        return numbers


@dataclass(frozen=True)
class _Rows:
    """Cells by rows, "" where there is nothing, and the line that each row stands in."""

    header: Sequence[str]
    lines: Sequence[int]
    cells: Sequence[Sequence[str]]


def _read_csv(path: Path) -> _Rows:
    try:
        reader = csv.reader(io.StringIO(_content(path), newline=""))
        header = next(reader, [])
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}") from None
    return _Rows(header, [n for n, _ in rows], [cells for _, cells in rows])


def _read_jsonl(path: Path) -> _Rows:
    header: list[str] = []
    lines: list[int] = []
    rows: list[list[str]] = []
    for n, line in enumerate(_content(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {n} is not JSON: {error}") from None
        if not isinstance(row, dict) or (rows and row.keys() != set(header)):
            keys = ", ".join(header) or "path and the factors"
            raise UserError(f"{path}, line {n} must be a JSON object with the keys {keys}")
        header = header or [str(key) for key in row]
        lines.append(n)
        rows.append([_text(row[key]) for key in header])
    return _Rows(header, lines, rows)


def _read_parquet(path: Path) -> _Rows:
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            f"{path} needs pyarrow: pip install 'vidcomp[parquet]', or write the table as CSV"
        )
    import pyarrow  # pyright: ignore[reportMissingImports]
    import pyarrow.parquet  # pyright: ignore[reportMissingImports]

    try:
        table: Any = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file: {first_line(error)}") from None
    columns: list[list[str]] = [[*map(_text, column.to_pylist())] for column in table.columns]
    rows = list(zip(*columns, strict=True))
    return _Rows([str(name) for name in table.column_names], range(1, len(rows) + 1), rows)


def _content(path: Path) -> str:
    """With the line ends as they are: a cell may hold some, and what else Unicode calls one."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a table in UTF-8: {error}") from None


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell, default=str)
