"""Shared by all tests: one thread, so that results and times do not depend on the machine; and runs
that are trained once for all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def the_same_draws_whenever_a_test_runs() -> Iterator[None]:
    """Of torch's global generator, which some tests draw from: alone and in any order."""
    from vidcomp.seeding import initial_weights

    with initial_weights(0):
        yield


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared runs lie. Tests read them; whoever changes one copies it first."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def fsq(runs: Path) -> Path:
    """The folder of a discrete tokenizer."""
    from tiny import tokenizer_run, trained

    return trained(tokenizer_run("fsq", steps=60, learning_rate=5e-3), runs / "fsq")


@pytest.fixture(scope="session")
def kl(runs: Path) -> Path:
    """The folder of a continuous tokenizer."""
    from tiny import tokenizer_run, trained

    return trained(tokenizer_run("kl", steps=60, learning_rate=5e-3), runs / "kl")


@pytest.fixture(scope="session")
def maskgit(runs: Path, fsq: Path) -> Path:
    """The folder of a masked generator with a JEPA head."""
    from tiny import generator_run, trained

    return trained(generator_run(fsq, "maskgit", jepa=True, steps=20), runs / "maskgit")


@pytest.fixture(scope="session")
def flow(runs: Path, kl: Path) -> Path:
    """The folder of a continuous generator."""
    from tiny import generator_run, trained

    return trained(generator_run(kl, "flow", steps=20), runs / "flow")


@pytest.fixture(scope="session")
def judge(runs: Path, fsq: Path) -> Path:
    """The folder of a fitted judge. It is no good."""
    from tiny import DATA

    from vidcomp.evaluation import ProbeFit, fit_probe

    probe = {"name": "factors", "width": 8, "steps": 5, "batch_size": 16}
    raw = {"name": "judge", "data": DATA, "tokenizers": [str(fsq)], "probe": probe}
    return fit_probe(ProbeFit.model_validate(raw), runs / "judge")
