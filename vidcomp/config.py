"""Configs: YAML in, checked and frozen records out; and families, whose files are their variants.

OmegaConf reads the YAML and the ``key=value`` overrides, pydantic checks them. An unknown key is an
error that names the nearest known one; nothing is ignored. This module imports no torch, so that
the command line stays quick.

Unusual: a YAML may say ``extends: other.yaml`` (or a list), which is merged beneath it. That is the
only way in which configs share text.
"""

import difflib
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    model_serializer,
    model_validator,
)
from yaml import MarkedYAMLError, YAMLError


class UserError(ValueError):
    """A mistake that the user can mend: one line with the thing, the legal values and the way out.

    The command line prints it without a traceback and exits with status 2.
    """


def nearest(name: str, legal: Iterable[str]) -> str:
    """``did you mean 'steps'? legal: batch_size, steps`` for error messages."""
    known = sorted(legal)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}legal: {', '.join(known)}"


class Settings(BaseModel):
    """A frozen record of settings. Unknown keys are errors; null where it is no legal value stands
    for the default, which is how a YAML drops a key of one that it extends."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        given: dict[str, Any] = {}
        for key, value in raw.items():
            if str(key) not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}; {nearest(str(key), cls.model_fields)}")
            annotation = cls.model_fields[str(key)].annotation
            if value is not None or type(None) in get_args(annotation):
                given[str(key)] = value
        return given

    @property
    def digest(self) -> str:
        """Twelve hex digits that change when any setting changes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Variant(Settings):
    """The settings of one variant of a family; its ``name`` is that of the file it is defined
    in."""

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @model_serializer(mode="wrap")
    def _with_name(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {"name": self.name, **handler(self)}


@dataclass(frozen=True)
class Family:
    """A package whose modules are variants, each with a ``Config(Variant)``; all but ``base`` and
    ``base_*``, which they share."""

    package: str

    def names(self) -> list[str]:
        """Every variant there is, by listing files: adding a variant is adding a file."""
        paths = importlib.import_module(self.package).__path__
        names = [module.name for module in pkgutil.iter_modules(paths)]
        return sorted(name for name in names if name.partition("_")[0] != "base")

    def config(self, raw: Any) -> Any:
        """The checked `Config` for ``"fsq"``, ``{"name": "fsq", ...}`` or a `Config` itself."""
        if isinstance(raw, Variant) or raw is None:
            return raw
        fields: dict[str, Any] = dict(raw) if isinstance(raw, Mapping) else {"name": raw}
        name = fields.pop("name", None)
        kind = self.package.rpartition(".")[2]
        if name is None:
            raise ValueError(f"{kind}: 'name' is missing; legal: {', '.join(self.names())}")
        if name not in self.names():
            raise ValueError(f"no {name!r} in {kind}; {nearest(str(name), self.names())}")
        return importlib.import_module(f"{self.package}.{name}").Config.model_validate(fields)


Root = TypeVar("Root", bound="RootSettings")


class RootSettings(Settings):
    """The root of a YAML file."""

    @classmethod
    def load(cls: type[Root], path: str | Path | None, overrides: Iterable[str] = ()) -> Root:
        """Read `path` (None: no file), apply ``key=value`` `overrides`, check.

        Raises UserError, in one line.
        """
        raw = read_yaml(path, overrides)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise UserError(f"{path or 'command line'}: {explain(error)}") from None

    def save(self, path: Path) -> None:
        """Write the resolved config as YAML."""
        OmegaConf.save(OmegaConf.create(self.model_dump(mode="json")), path)


def read_yaml(path: str | Path | None, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The plain content of a YAML file, its ``extends`` merged beneath and `overrides` on top."""
    merged = OmegaConf.create({}) if path is None else _read_extended(Path(path))
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override!r} is not key=value; example: train.steps=100")
        try:
            merged.merge_with(OmegaConf.from_dotlist([override]))
        except (OmegaConfBaseException, YAMLError, TypeError, ValueError) as error:
            raise UserError(f"{override!r} cannot be applied: {first_line(error)}") from None
    try:
        content = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def explain(error: ValidationError) -> str:
    """A pydantic error in one line, each place by its dotted key."""
    parts: list[str] = []
    for item in error.errors():
        place = ".".join(str(p) for p in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        given = item.get("input")
        value = f", got {given!r}" if item["type"] not in ("value_error", "missing") else ""
        parts.append(f"{place}: {message}{value}" if place else f"{message}{value}")
    return "; ".join(parts)


def first_line(error: Exception) -> str:
    """An error in one line: of a YAML error the problem and its place, else the first line."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_extended(path: Path, seen: tuple[Path, ...] = ()) -> DictConfig:
    if path.resolve() in seen:
        raise UserError(f"{path}: 'extends' goes in a circle")
    if not path.is_file():
        raise UserError(f"no config at {path}; the shipped ones are in configs/")
    try:
        own = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {first_line(error)}") from None
    if not isinstance(own, DictConfig):
        raise UserError(f"{path}: a config is a mapping of key: value")
    below = own.pop("extends", ListConfig([]))
    merged = OmegaConf.create({})
    for other in below if isinstance(below, ListConfig) else [below]:
        merged.merge_with(_read_extended(path.parent / str(other), (*seen, path.resolve())))
    merged.merge_with(own)
    return merged
