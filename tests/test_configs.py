"""Every YAML that is shipped builds, says what it costs, and shows the command that runs it."""

import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny import ROOT

from vidcomp.config import RootSettings, read_yaml
from vidcomp.datasets.base import DataRoot
from vidcomp.evaluation import ProbeFit
from vidcomp.evaluation.foreign import Prompts
from vidcomp.probes.base import PROBES, TrainedJudge
from vidcomp.runs import GeneratorRun, TokenizerRun, load_run
from vidcomp.study import StudyConfig
from vidcomp.types import LatentSpec
from vidcomp.world.factors import Factors

CONFIGS = ROOT / "configs"
YAMLS = sorted(CONFIGS.rglob("*.yaml"))
PARTS = CONFIGS / "studies/parts"  # of studies: whole only in those that extend them
MAX_LINES = 40


def header(path: Path) -> list[str]:
    """The comment at the top."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return lines


def schema(path: Path) -> type[RootSettings]:
    """By what the YAML says, as the tools tell them apart."""
    raw = read_yaml(path)
    if "worlds" in raw and "name" in raw:
        return StudyConfig
    if "probe" in raw:
        return ProbeFit
    if "concepts" in raw:
        return Prompts
    if "train" in raw:
        return type(load_run(path)[0])
    return DataRoot


def factors_of(data: object) -> Factors | None:
    """Of a dataset that is drawn, or rendered before it is read; None if only its files know."""
    config = getattr(data, "render", None) or getattr(data, "dataset", None)
    return None if config is None or reads_files(config) else config.build().factors


def reads_files(config: object) -> bool:
    """Whether a dataset is other people's files, which no clone has."""
    return hasattr(config, "path")


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands in the headers are typed there."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(CONFIGS)))
class TestConfig:
    """One shipped YAML."""

    def test_it_builds(self, path: Path) -> None:
        if path.is_relative_to(PARTS):
            assert any(path.name in other.read_text() for other in YAMLS if other != path)
            return
        config = schema(path).load(path)
        match config:
            case TokenizerRun():
                spec = config.tokenizer.build().spec
                check_grid(spec, config)
            case GeneratorRun():
                check_generator(config)
            case ProbeFit():
                factors = factors_of(config.data)
                assert factors is not None
                assert isinstance(config.probe.build(factors), TrainedJudge)
            case Prompts():
                assert len(config.named) > 2
            case StudyConfig():
                named = list(config.bases.values())
                for world in config.worlds.values():
                    named += [world.data, *world.tokenizers.values()]
                    named += [world.probe] if world.probe not in PROBES.names() else []
                assert all(Path(name).is_file() for name in named)
            case DataRoot():
                if (factors := factors_of(config.data)) is not None:
                    split = config.data.split.build(factors)
                    assert len(split.level_names) > 1, "something is held out"
            case _:
                raise AssertionError(config)

    def test_its_header_has_command_cost_and_result(self, path: Path) -> None:
        lines = header(path)
        assert len(lines) >= 3 and lines[0]
        commands = [line for line in lines if "python tools/" in line]
        assert len(commands) >= 1, "the command is missing"
        words = shlex.split(commands[0][commands[0].index("python tools/") :].rstrip(")"))
        assert Path(words[1]).is_file(), f"there is no {words[1]}"
        run = Path(words[2] if words[2].endswith(".yaml") else words[3].removeprefix("prompts="))
        extends = read_extends(run)
        if not path.is_relative_to(PARTS):
            assert path.resolve() in (run.resolve(), *extends), "the command is another config's"
        text = " ".join(lines)
        assert "Cost:" in text and "Result:" in text

    def test_it_is_short(self, path: Path) -> None:
        assert len(path.read_text().splitlines()) <= MAX_LINES


def read_extends(path: Path) -> list[Path]:
    """What a YAML extends: a config that is not run by itself shows the command of one that is."""
    below = OmegaConf.to_container(OmegaConf.load(path)).get("extends", [])
    return [
        (path.parent / other).resolve() for other in ([below] if isinstance(below, str) else below)
    ]


def check_grid(spec: LatentSpec, run: TokenizerRun) -> None:
    drawn = run.data.render or run.data.dataset
    if not reads_files(drawn):
        dataset = drawn.build()
        spec.grid(dataset.num_frames, dataset.height, dataset.width)


def check_generator(run: GeneratorRun) -> None:
    """With its tokenizer, whose config is known if it is named by a YAML."""
    factors = factors_of(run.data)
    if not run.tokenizer.endswith(".yaml") or factors is None:
        return
    tokenizer, _ = load_run(run.tokenizer)
    assert isinstance(tokenizer, TokenizerRun)
    spec = tokenizer.tokenizer.build().spec
    check_grid(spec, tokenizer)
    run.generator.build(spec, factors)


def test_names_are_unique() -> None:
    """A run's folder is named after it, so two runs of one name would be in each other's way."""
    whole = [path for path in YAMLS if not path.is_relative_to(PARTS)]
    runs = [path for path in whole if schema(path) in (TokenizerRun, GeneratorRun)]
    names = [load_run(path)[0].name for path in runs]
    assert len(set(names)) == len(names)
