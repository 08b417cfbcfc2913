"""Tables as text by columns: each format says the same, and each gap is named."""

from pathlib import Path

import pytest

from vidcomp.config import UserError
from vidcomp.world.columns import Columns


def test_json_lines_may_hold_numbers_and_truth_values(tmp_path: Path) -> None:
    path = tmp_path / "factors.jsonl"
    path.write_text(
        '{"path": "a.mp4", "solid": true, "count": 3, "size": "big", "size.0": 0.25}\n\n'
        '{"count": 12, "path": "b.mp4", "size.0": 2, "solid": false, "size": "small"}\n'
    )
    columns = Columns.read(path)
    assert columns.cells["path"] == ["a.mp4", "b.mp4"]
    assert columns.cells["solid"] == ["true", "false"]
    assert columns.cells["count"] == ["3", "12"]
    assert columns.numbers("size.0").tolist() == [0.25, 2.0]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "one of them 'path'"),
        ('{"path": "a.mp4", "x": 1\n', "line 1 is not JSON"),
        ('{"path": "a.mp4"}\n["b.mp4"]\n', "line 2 must be a JSON object with the keys path"),
        ('{"path": "a.mp4", "x": 1}\n{"path": "b.mp4"}\n', "line 2 must be .* the keys path, x"),
        ('{"path": "a.mp4", "x": 1}\n\n{"path": "b.mp4", "x": null}\n', "line 3: needs 2 filled"),
        ('{"path": "a.mp4", "x": 1}\n{"path": "b.mp4", "x": " "}\n', "line 2: needs 2 filled"),
        ('{"file": "a.mp4"}\n', "one of them 'path'"),
    ],
)
def test_mistakes_in_json_lines_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "factors.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as error:
        Columns.read(path)
    assert "\n" not in str(error.value) and "factors.jsonl" in str(error.value)


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    """Unicode has more line ends than JSON and CSV have, and a quoted cell may hold any."""
    odd = "a\u2028b\x85c\x0cd.mp4"
    path = tmp_path / "factors.jsonl"
    path.write_bytes(f'{{"path": "{odd[:5]}", "x": "1"}}\r\n{{"path": "e", "x": "2"}}\r\n'.encode())
    assert Columns.read(path).cells == {"path": [odd[:5], "e"], "x": ["1", "2"]}
    path = tmp_path / "factors.csv"
    path.write_bytes(f'path,x\r\n{odd},1\r\n"e\r\nf",2\r\n'.encode())
    assert Columns.read(path).cells == {"path": [odd, "e\r\nf"], "x": ["1", "2"]}
    path.write_bytes(b'path,x\n"e\nf",2\ng\n')
    with pytest.raises(UserError, match="line 4: needs 2 filled cells"):
        Columns.read(path)


@pytest.mark.parametrize("number", ["nan", "inf", "-Infinity", "bright"])
def test_numbers_are_finite(tmp_path: Path, number: str) -> None:
    path = tmp_path / "factors.csv"
    path.write_text(f"path,x,x.0\na.mp4,a,1\nb.mp4,b,{number}\n")
    with pytest.raises(UserError, match=f"column 'x.0' holds numbers: .*{number}"):
        Columns.read(path).numbers("x.0")


def test_parquet_has_gaps_and_damage_too(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "factors.parquet"
    rows = [{"path": "a.mp4", "solid": True, "x": 3}, {"path": "b.mp4", "solid": None, "x": 4}]
    parquet.write_table(pyarrow.Table.from_pylist(rows[:1]), path)
    assert Columns.read(path).cells == {"path": ["a.mp4"], "solid": ["true"], "x": ["3"]}
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(UserError, match="line 2: needs 3 filled cells"):
        Columns.read(path)
    for content in (b"", b"path,x\na.mp4,3\n", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"factors\.parquet is not a Parquet file"):
            Columns.read(path)
