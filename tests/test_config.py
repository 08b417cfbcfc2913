"""Configs: a mistake is one line that names the thing and the legal values; nothing is ignored."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator

from vidcomp.config import Family, RootSettings, Settings, UserError, nearest

TOYS = Family("toys")


class Train(Settings):
    steps: int = 10
    learning_rate: float = 1e-3
    mode: Literal["fast", "slow"] = "fast"


class Config(RootSettings):
    out: str = "runs/x"
    toy: Annotated[Any, BeforeValidator(TOYS.config)] = None
    train: Train = Train()
    stages: tuple[Train, ...] = ()
    note: str | None = None


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family `toys` of two variants, made as a user would: one file each."""
    package = tmp_path / "lib" / "toys"
    package.mkdir(parents=True)
    config = "from vidcomp.config import Variant\n\n\nclass Config(Variant):\n    "
    (package / "__init__.py").touch()
    (package / "base.py").touch()
    (package / "ball.py").write_text(f"{config}radius: float = 1.0\n")
    (package / "brick.py").write_text(f"{config}sides: tuple[int, ...] = (1, 2, 3)\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    for name in [name for name in sys.modules if name.split(".")[0] == "toys"]:
        monkeypatch.delitem(sys.modules, name)


def load(folder: Path, text: str, *overrides: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text)
    return Config.load(path, overrides)


def mistake(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load(folder, text, *overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("trian: {}", ["'trian'", "did you mean 'train'?", "legal: note, out, stages, toy, train"]),
        ("train: {stpes: 1}", ["train: ", "'stpes'", "did you mean 'steps'?", "legal: learning_"]),
        ("stages: [{steps: 1}, {mod: fast}]", ["stages.1: ", "did you mean 'mode'?"]),
        ("toy: {name: ball, radios: 1}", ["toy: ", "did you mean 'radius'?"]),
        ("toy: bal", ["no 'bal' in toys", "did you mean 'ball'?", "legal: ball, brick"]),
        ("toy: base", ["no 'base' in toys"]),
        ("toy: {radius: 1}", ["'name' is missing", "legal: ball, brick"]),
        ("toy: [1]", ["no [1] in toys"]),
        ("toy: {name: brick, sides: [1, a]}", ["toy.sides.1: ", "'a'"]),
        (
            "train: {steps: many, mode: quick}",
            ["train.steps: ", "'many'", "train.mode: ", "'slow'"],
        ),
        ("train: 5", ["train: ", "5"]),
        ("out: [1", ["not valid YAML", "line "]),
        ("a: 1\nb: c: d", ["not valid YAML", "line 2"]),
        ("- a", ["a config is a mapping"]),
        ("out: ${nothing}", ["nothing"]),
        ("extends: other.yaml", ["no config at", "other.yaml"]),
        ("extends: [config.yaml]", ["'extends' goes in a circle"]),
    ],
)
def test_a_mistake_is_one_line_with_a_way_out(tmp_path: Path, text: str, words: list[str]) -> None:
    message = mistake(tmp_path, text)
    assert [word for word in words if word not in message] == [], message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config at .*nowhere\.yaml"):
        Config.load(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"out: \xff\xfe")
    with pytest.raises(UserError, match="not valid YAML"):
        Config.load(tmp_path / "binary.yaml")


def test_circles_are_found_at_any_length(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: config.yaml")
    assert "circle" in mistake(tmp_path, "extends: a.yaml")


def test_extends_merges_beneath_later_over_earlier(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "root.yaml").write_text("train: {steps: 1, learning_rate: 0.5}\nout: root\nnote: n")
    (tmp_path / "deep" / "a.yaml").write_text("extends: ../root.yaml\ntrain: {steps: 2}\nout: a")
    (tmp_path / "b.yaml").write_text("out: b")
    loaded = load(tmp_path, "extends: [deep/a.yaml, b.yaml]\ntrain: {mode: slow}")
    assert loaded.train == Train(steps=2, learning_rate=0.5, mode="slow")
    assert (loaded.out, loaded.note) == ("b", "n")


def test_overrides_come_last_and_have_types(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "train: {steps: 5, mode: slow}\nnote: text\ntoy: ball",
        "train.steps=7",
        "train.learning_rate=1e-4",
        "note=null",
        "out=a=b",
        "stages=[{steps: 1}]",
        "toy={name: brick, sides: [4, 5]}",
        "train.steps=8",
    )
    assert loaded.train == Train(steps=8, learning_rate=1e-4, mode="slow")
    assert (loaded.note, loaded.out, loaded.stages) == (None, "a=b", (Train(steps=1),))
    assert loaded.toy.sides == (4, 5)


@pytest.mark.parametrize(
    "override, words",
    [
        ("train.steps", ["'train.steps' is not key=value", "example"]),
        ("=5", ["is not key=value"]),
        ("train.steps=[1", ["'train.steps=[1' cannot be applied"]),
        ("train.stpes=1", ["train: ", "did you mean 'steps'?"]),
        ("toy.radius=1", ["'name' is missing"]),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, override: str, words: list[str]) -> None:
    message = mistake(tmp_path, "out: a", override)
    assert [word for word in words if word not in message] == [], message


def test_a_variant_goes_by_the_name_of_its_file(tmp_path: Path) -> None:
    assert TOYS.names() == ["ball", "brick"]
    short, long = load(tmp_path, "toy: ball"), load(tmp_path, "toy: {name: ball, radius: 1.0}")
    assert short == long and short.toy.name == "ball"
    assert TOYS.config(short.toy) is short.toy
    assert short.model_dump()["toy"] == {"name": "ball", "radius": 1.0}


def test_a_new_variant_is_one_new_file(tmp_path: Path) -> None:
    kite = "from vidcomp.config import Variant\n\n\nclass Config(Variant):\n    tail: int = 3\n"
    (tmp_path / "lib" / "toys" / "kite.py").write_text(kite)
    assert load(tmp_path, "toy: {name: kite, tail: 4}").toy.tail == 4


def test_saving_and_loading_gives_the_same(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "toy: {name: brick, sides: [7]}\nstages: [{steps: 3}, {learning_rate: 1.0e-07}]",
    )
    for note in (config.note, "null", "yes", "12", "a: b", "line\nline", None):
        config = config.model_copy(update={"note": note})
        config.save(tmp_path / "saved.yaml")
        assert Config.load(tmp_path / "saved.yaml") == config
        assert Config.load(tmp_path / "saved.yaml").digest == config.digest


def test_the_digest_is_stable_and_sensitive(tmp_path: Path) -> None:
    texts = [
        "",
        "out: b",
        "train: {steps: 11}",
        "stages: [{}]",
        "stages: [{}, {}]",
        "toy: ball",
        "toy: {name: ball, radius: 2}",
        "toy: brick",
        "note: a",
    ]
    digests = [load(tmp_path, text).digest for text in texts]
    assert len(set(digests)) == len(texts)
    assert digests == [load(tmp_path, text).digest for text in texts]
    assert load(tmp_path, "train: {mode: fast, steps: 11}").digest == digests[2]
    assert digests[0] == "3518159fcc66"  # a golden value: the digest names run folders and caches


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Train().steps = 3  # pyright: ignore


def test_nearest_without_a_near_name() -> None:
    assert nearest("zzz", ["b", "a"]) == "legal: a, b"


def test_null_drops_a_key_of_the_yaml_that_is_extended(tmp_path: Path) -> None:
    """So a split's rule can be changed, on the command line or by a YAML that extends."""
    (tmp_path / "below.yaml").write_text("a: 3\nnote: kept\n")

    class Kept(RootSettings):
        a: int = 1
        note: str | None = "default"

    assert Kept.load(tmp_path / "below.yaml", ["a=null"]) == Kept(a=1, note="kept")
    assert Kept.load(tmp_path / "below.yaml", ["note=null"]).note is None, "null is legal there"
