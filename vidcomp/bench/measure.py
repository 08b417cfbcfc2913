"""How things are timed: in turn within one process, as medians with their spread, and as ratios.

A shared machine gets slower and faster by the minute. So what is compared is run one after the
other, again and again, and each repeat gives one ratio: a slow minute moves both sides of it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import PositiveInt

from vidcomp.config import RootSettings

WARM_UP = 2
"""Repeats that are not counted: the first ones fill caches and compile kernels."""

Job = Callable[[], object]
Times = Float[NDArray[Any], " n"]


class BenchConfig(RootSettings):
    """What to measure. Objectives that none of `generators` has are put into the first of them
    whose latents they take. `size`: of all trunks, in place of the configs' own. `precision` is
    that of training steps and matrix products alike. `num_files`: in the folder of the verb
    ``folder``.
    """

    generators: tuple[str, ...] = (
        "configs/generators/maskgit.yaml",
        "configs/generators/maskgit_jepa.yaml",
        "configs/generators/flow.yaml",
    )
    tokenizers: tuple[str, ...] = ("configs/tokenizers/fsq.yaml", "configs/tokenizers/kl.yaml")
    size: str | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    repeats: PositiveInt = 10
    num_files: PositiveInt = 100_000
    threads: PositiveInt = 1
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path = Path("runs/bench.json")


class Spread(NamedTuple):
    """A median between the quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Times) -> "Spread":
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return cls(median, low, high)

    def __str__(self) -> str:
        median, low, high = (f"{x:.3g}" if x < 1000 else f"{x:.0f}" for x in self)
        return f"{median} [{low}, {high}]"


class Limit(NamedTuple):
    """What the project promises of a figure's ratio, or of its seconds."""

    bound: Literal["<=", ">="]
    value: float
    of: Literal["ratio", "s"] = "ratio"


@dataclass(frozen=True)
class Figure:
    """Seconds, and the `ratio` that they are, or the rate that they mean, to `reference`."""

    name: str
    seconds: Spread
    rate: float
    unit: str
    ratio: Spread | None = None
    reference: str = ""
    limit: Limit | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median keeps to the limit; None if there is none."""
        if self.limit is None:
            return None
        measured = self.seconds if self.limit.of == "s" else self.ratio
        assert measured is not None, f"{self.name}: a limit on a ratio that was not measured"
        if self.limit.bound == "<=":
            return measured.median <= self.limit.value
        return measured.median >= self.limit.value

    def line(self) -> str:
        ms = Spread(*(1e3 * s for s in self.seconds))
        parts = [f"{self.name:42s} {f'{ms} ms':24s} {self.rate:8.4g} {self.unit:9s}"]
        if self.ratio is not None:
            parts.append(f"= {f'{self.ratio}':22s} {self.reference}")
        if self.limit is not None:
            unit = " s" if self.limit.of == "s" else ""
            verdict = "met" if self.met else "NOT MET"
            parts.append(f"(limit {self.limit.bound} {self.limit.value:g}{unit}: {verdict})")
        return " ".join(parts) + (f"  {self.note}" if self.note else "")


def in_turn(config: BenchConfig, jobs: Sequence[Job], *, are_long: bool = False) -> list[Times]:
    """Seconds of each job in each repeat, in which all run one after the other, forwards and
    backwards by turns. Jobs of many seconds have fewer repeats, which tell as much."""
    warm_up = 1 if are_long else WARM_UP
    counted = max(1, config.repeats // 3) if are_long else config.repeats
    seconds = np.zeros((len(jobs), warm_up + counted))
    for repeat in range(warm_up + counted):
        for k in sorted(range(len(jobs)), reverse=repeat % 2 == 1):
            synchronize(config)
            began = time.perf_counter()
            jobs[k]()
            synchronize(config)
            seconds[k, repeat] = time.perf_counter() - began
    return list(seconds[:, warm_up:])


def synchronize(config: BenchConfig) -> None:
    if config.device == "cuda":
        torch.cuda.synchronize()
