"""The factor table: writing and reading are inverses, factors are inferred, mistakes are named."""

from pathlib import Path

import pytest
import torch

from vidcomp.config import UserError
from vidcomp.world.concepts import choose
from vidcomp.world.manifest import MANIFEST, Manifest
from vidcomp.world.scenes import combinations_of, draw_values
from vidcomp.world.splits import SplitConfig, level_name
from vidcomp.world.table import TABLE, Table


def a_table() -> Table:
    factors = choose(
        {"shape": ("star", "ring"), "motion": ("up", "left"), "colour": ("red", "blue")}
    )
    indices = torch.arange(16)
    classes = combinations_of(factors, indices, seed=0)
    values = draw_values(factors, classes, indices, seed=0)
    return Table(factors, tuple(f"a dir/{i},x.mp4" for i in range(16)), classes, values)


def test_read_is_the_inverse_of_write(tmp_path: Path) -> None:
    table = a_table()
    table.save(tmp_path)
    back = Table.load(tmp_path, factors=table.factors)
    assert back.paths == table.paths and back.factors == table.factors
    assert torch.equal(back.classes, table.classes)
    assert torch.equal(back.values, table.values)


def test_the_manifest_comes_back(tmp_path: Path) -> None:
    assert Manifest.load(tmp_path) is None
    manifest = Manifest(5, 9, 32, 48, 12.5, "abc", a_table().factors)
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(UserError, match=r"dataset\.json is damaged"):
        Manifest.load(tmp_path)


def test_factors_are_inferred(tmp_path: Path) -> None:
    table = a_table()
    table.save(tmp_path)
    back = Table.load(tmp_path, factors=None, temporal=["motion"])
    assert back.factors.names == ("shape", "motion", "colour")
    assert [f.class_names for f in back.factors.items] == [
        ("ring", "star"),
        ("left", "up"),
        ("blue", "red"),
    ]
    assert [f.temporal for f in back.factors.items] == [False, True, False]
    assert [f.value_size for f in back.factors.items] == [0, 2, 3]
    assert torch.equal(back.classes, 1 - table.classes)  # the alphabet turns each pair around
    assert torch.equal(back.values, table.values)
    reds = table.values[table.classes[:, 2] == 0, 2]
    red = back.factors.items[2].classes[1]
    assert red.prototype == pytest.approx(((reds.amax(0) + reds.amin(0)) / 2).tolist(), abs=1e-6)
    assert red.spread == pytest.approx(((reds.amax(0) - reds.amin(0)) / 2).tolist(), abs=1e-6)


@pytest.mark.parametrize("num", [1, 3, 7, 25, 100])
def test_constant_numbers_are_their_own_prototypes(tmp_path: Path, num: int) -> None:
    """The mean of 0.3, 0.3, ... is not 0.3 in float32, and was outside of a range up to it."""
    sizes = {"small": 0.1, "medium": 0.2, "large": 0.3, "huge": 0.4}
    lines = [f"{name}{i}.mp4,{name},{x}" for name, x in sizes.items() for i in range(num)]
    (tmp_path / TABLE).write_text("\n".join(["path,size,size.0", *lines]))
    table = Table.load(tmp_path, factors=None)
    split = SplitConfig(rule="range", seen={"size": (0.1, 0.3)}).build(table.factors)
    held_out = split.requests("level-1", 1).classes
    assert [table.factors.describe(row) for row in held_out] == ["huge"]


@pytest.mark.parametrize("low", [0.8, 0.2])
def test_the_box_of_a_class_holds_its_clips(tmp_path: Path, low: float) -> None:
    numbers = [0, 0, 0, 0, 1, 0.3]
    lines = [f"{i}.mp4,{'b' if i == 5 else 'a'},{x}" for i, x in enumerate(numbers)]
    (tmp_path / TABLE).write_text("\n".join(["path,size,size.0", *lines]))
    table = Table.load(tmp_path, factors=None)
    for ids, values in zip(table.classes, table.values, strict=True):
        (of_class,) = (table.factors.items[0].classes[k] for k in ids.tolist())
        assert abs(values.item() - of_class.prototype[0]) <= of_class.spread[0]
    split = SplitConfig(rule="range", seen={"size": (low, 1.0)}).build(table.factors)
    levels = split.levels(table.classes, table.values).tolist()
    assert {level_name(k) for k in levels} == {"seen", "level-1"} == set(split.level_names)


def test_a_spreadsheets_table_is_read(tmp_path: Path) -> None:
    text = "path,shape\r\nb.mp4, ring \r\n\r\na.mp4,star\r\n"
    (tmp_path / TABLE).write_bytes("﻿".encode() + text.encode())
    table = Table.load(tmp_path, factors=None)
    assert table.paths == ("b.mp4", "a.mp4")
    assert table.factors.items[0].class_names == ("ring", "star")
    assert table.values.shape == (2, 1, 0)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "first line must name"),
        ("file,shape\na.mp4,star\n", "one of them 'path'"),
        ("path,shape\n", "lists no clips"),
        ("path\na.mp4\n", "has no factors"),
        ("path,shape\na.mp4\n", "line 2: needs 2 filled cells"),
        ("path,shape\na.mp4,star\nb.mp4, \n", "line 3: needs 2 filled cells"),
        ("path,shape\na.mp4,star\na.mp4,ring\n", "lists 'a.mp4' more than once"),
        ("path,colour,colour.0\na.mp4,red,bright\n", "'colour.0' holds numbers"),
        ("path,colour,hue.0\na.mp4,red,0.5\n", "column 'hue.0' .* name it 'hue_0'"),
        ("path,colour,colour.px\na.mp4,red,1\n", "column 'colour.px' .* name it 'colour_px'"),
        ("path,colour,colour.1\na.mp4,red,0.5\n", "no column 'colour.0'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(UserError, match=complaint) as error:
        Table.load(tmp_path, factors=None)
    assert "\n" not in str(error.value) and TABLE in str(error.value)


def test_a_table_that_is_not_text_or_not_of_these_factors_is_named(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not a table in UTF-8"):
        Table.load(tmp_path, factors=None)
    (tmp_path / TABLE).write_text("path,shape\na.mp4,squid\n")
    with pytest.raises(UserError, match=r"the shape of a\.mp4 is 'squid'.*legal: ring, star"):
        Table.load(tmp_path, factors=choose({"shape": ("star", "ring")}))
    with pytest.raises(UserError, match="no column 'colour'"):
        Table.load(tmp_path, factors=choose({"colour": ("red", "blue")}))
    (tmp_path / TABLE).write_text("path,shape\na.mp4,star\n")
    with pytest.raises(UserError, match="temporal names no factor 'motion'"):
        Table.load(tmp_path, factors=None, temporal=["motion"])
