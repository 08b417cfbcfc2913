"""The shape of the code: imports go down the floors, files are small, help imports nothing heavy.

The floors are those of the README. A module sees the floors below it and its own package, never its
neighbours: an objective cannot know which tokenizer made its latents.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "vidcomp"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("types", "config", "cli", "seeding", "schedules", "workers", "media"),
    ("world", "nn"),
    ("datasets", "tokenizers", "objectives"),
    ("models", "samplers", "probes", "storage"),
    ("runs",),
    ("pipeline",),
    ("training", "evaluation", "report", "jobs"),
    ("study", "bench"),
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 80
MAX_TOOL_LINES = 50
SEEDING = f"{PACKAGE}.seeding"
GLOBAL_SEEDS = ("manual_seed", "manual_seed_all", "set_seed")  # torch's and accelerate's


def modules() -> dict[str, str]:
    """The source of every module of the package, by dotted name."""
    sources: dict[str, str] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(p for p in parts if p != "__init__")] = path.read_text()
    return sources


def part_of(module: str) -> str:
    """The top-level part that a module belongs to: ``vidcomp.world.factors`` to ``world``."""
    return [*module.split("."), ""][1]


def imports(module: str, source: str) -> Iterator[str]:
    """The dotted names that a module imports from the package, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            stem = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE)


def floor_faults(sources: dict[str, str]) -> list[str]:
    """Modules without a floor, and imports that do not go down."""
    faults: list[str] = []
    for module, source in sources.items():
        if module == PACKAGE:  # `vidcomp.load` reaches the pipeline, lazily
            continue
        part = part_of(module)
        if part not in FLOOR:
            faults.append(f"{module} stands on no floor")
            continue
        for name in imports(module, source):
            other = part_of(name)
            if other == part or other.startswith("__"):
                continue
            if other not in FLOOR:
                faults.append(f"{module} imports {name}, which stands on no floor")
            elif FLOOR[other] >= FLOOR[part] and (FLOOR[other], FLOOR[part]) != (0, 0):
                faults.append(f"{module} imports {name}, which is not below it")
    return faults


def size_faults(sources: dict[str, str]) -> list[str]:
    """Long files and long functions."""
    faults: list[str] = []
    for module, source in sources.items():
        lines = len(source.splitlines())
        if lines > MAX_FILE_LINES:
            faults.append(f"{module} has {lines} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    faults.append(f"{module}.{node.name} has {lines} lines")
    return faults


def habit_faults(sources: dict[str, str]) -> list[str]:
    """No introduction, a global seed outside seeding.py, a device chosen by a method."""
    faults: list[str] = []
    for module, source in sources.items():
        tree = ast.parse(source)
        if not ast.get_docstring(tree):
            faults.append(f"{module} has no docstring")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in GLOBAL_SEEDS and module != SEEDING:
                faults.append(f"{module} calls {called}: randomness comes from vidcomp.seeding")
            if called == "cuda" and isinstance(node.func, ast.Attribute):
                faults.append(f"{module} calls .cuda(): tensors go .to(device)")
    return faults


def test_imports_go_down() -> None:
    assert floor_faults(modules()) == []


def test_files_and_functions_are_small() -> None:
    assert size_faults(modules()) == []


def test_modules_introduce_themselves_and_own_no_randomness() -> None:
    assert habit_faults(modules()) == []


@pytest.mark.parametrize(
    "module, source",
    [
        ("vidcomp.world.motion", "from vidcomp.datasets.base import Clips"),  # up
        ("vidcomp.world.motion", "def f():\n    import vidcomp.pipeline"),  # up, inside a function
        ("vidcomp.nn.blocks", "from vidcomp.world import factors"),  # a neighbour
        ("vidcomp.nn.blocks", "from vidcomp import world"),
        ("vidcomp.nn.blocks", "from ..world import factors"),
        ("vidcomp.training.tasks", "from vidcomp.report import page"),
        ("vidcomp.types", "from vidcomp.nn import blocks"),
        ("vidcomp.helpers", ""),  # no floor
        ("vidcomp.study", "from vidcomp.helpers import f"),
    ],
)
def test_a_wrong_import_is_caught(module: str, source: str) -> None:
    assert len(floor_faults({module: source})) == 1


@pytest.mark.parametrize(
    "module, source",
    [
        ("vidcomp.world.motion", "from vidcomp.world.factors import Factors\nimport torch"),
        ("vidcomp.nn.blocks", "from . import attention\nfrom vidcomp.types import Grid"),
        ("vidcomp.types", "from vidcomp.config import UserError"),
        ("vidcomp.study", "from vidcomp import __version__, pipeline"),
        ("vidcomp", "from vidcomp.pipeline import Pipeline"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert floor_faults({module: source}) == []


def test_other_faults_are_caught() -> None:
    long_function = "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
    assert size_faults({"vidcomp.study": long_function}) == ["vidcomp.study.f has 81 lines"]
    assert len(size_faults({"vidcomp.study": "x = 1\n" * (MAX_FILE_LINES + 1)})) == 1
    seeds = '"""Doc."""\nimport torch\ntorch.manual_seed(0)\n'
    assert len(habit_faults({"vidcomp.study": seeds})) == 1
    assert habit_faults({SEEDING: seeds}) == []
    assert len(habit_faults({"vidcomp.study": "x = 1"})) == 1
    assert len(habit_faults({"vidcomp.study": '"""Doc."""\nx.cuda()'})) == 1
    assert habit_faults({"vidcomp.study": '"""Doc."""\ntorch.cuda.is_available()'}) == []


TOOLS = sorted((ROOT / "tools").glob("*.py"))

SHOW_HELP = """
import runpy, sys
tool = sys.argv[1]
sys.argv = [tool, "--help"]
try:
    runpy.run_path(tool, run_name="__main__")
except SystemExit as end:
    heavy = {"torch", "numpy", "scipy", "matplotlib", "accelerate"} & set(sys.modules)
    print("imported:", *sorted(heavy))
    raise
"""


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.stem)
def test_help_shows_an_example_and_imports_nothing_heavy(tool: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW_HELP, str(tool)], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    *help_lines, imported = shown.stdout.splitlines()
    assert any(line.strip().startswith("python tools/") for line in help_lines), shown.stdout
    assert imported.strip() == "imported:"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.stem)
def test_tools_only_call_the_package(tool: Path) -> None:
    assert len(tool.read_text().splitlines()) <= MAX_TOOL_LINES
