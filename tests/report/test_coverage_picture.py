"""The picture of a split: each cell has its levels' colours, by their shares."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from PIL import Image

from vidcomp.report.coverage import coverage_figure, coverage_picture, write_coverage
from vidcomp.world.concepts import choose
from vidcomp.world.coverage import Coverage, coverage_of_clips, coverage_of_combinations
from vidcomp.world.factors import Factor, FactorClass, Factors
from vidcomp.world.splits import LEVEL_COLOURS, SplitConfig


def made_up(**sizes: int) -> Factors:
    return Factors(
        tuple(
            Factor(name, tuple(FactorClass(f"{name} {k}") for k in range(size)))
            for name, size in sizes.items()
        )
    )


def covered(factors: Factors, **split: object) -> Coverage:
    return coverage_of_combinations(SplitConfig.model_validate(split).build(factors))


COVERAGES = {
    "2 x 2 x 2": covered(made_up(a=2, b=2, c=2), novel={"a": ["a 1"], "b": ["b 1"], "c": ["c 1"]}),
    "240": covered(
        made_up(hue=10, shape=3, scale=8),
        novel={"hue": ["hue 9"], "shape": ["shape 2"], "scale": ["scale 7"]},
    ),
    "one": covered(made_up(label=5)),
    "none": covered(made_up()),
    "many classes": covered(made_up(label=100, b=2)),
    "many factors": covered(made_up(a=5, b=4, c=4, d=4, e=4), rule="fraction", held_out=0.3),
}


def painted(axes: Axes) -> list[tuple[tuple[float, float, float], float, float]]:
    """Of each part of a cell: its colour, and its width and height."""
    (cells,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    boxes = [path.get_extents() for path in cells.get_paths()]
    colours = [tuple(c[:3]) for c in np.asarray(cells.get_facecolor())]
    return [(c, box.width, box.height) for c, box in zip(colours, boxes, strict=True)]


@pytest.mark.parametrize("name", COVERAGES)
def test_the_area_of_a_colour_is_the_share_of_its_level(name: str) -> None:
    """Cells are alike in size, and combinations alike in number, so areas can be counted."""
    coverage = COVERAGES[name]
    figure = coverage_figure(coverage)
    parts = [part for axes in figure.axes if axes.collections for part in painted(axes)]
    total = sum(w * h for _, w, h in parts)
    for level, count in enumerate(coverage.counts.sum(0).tolist()):
        colour = to_rgba(LEVEL_COLOURS[level])[:3]
        area = sum(w * h for c, w, h in parts if c == pytest.approx(colour))
        assert area / total == pytest.approx(count / int(coverage.counts.sum()), abs=1e-3)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == f"seen {int(coverage.counts[:, 0].sum())}"


@pytest.mark.parametrize("name", COVERAGES)
def test_nothing_is_cut_off_and_no_names_overlap(name: str) -> None:
    figure = coverage_figure(COVERAGES[name])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for axes in figure.axes:
        names = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label]
        for text in names:
            if text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1
                assert box.y1 <= height + 1
        rows = [text.get_window_extent() for text in axes.get_yticklabels()]
        for above, below in itertools.pairwise(rows):
            assert above.y0 >= below.y1 - 1


def test_a_cell_of_two_levels_is_divided() -> None:
    factors = choose({"size": ("large", "small")})
    split = SplitConfig(novel={"size": "x < 0.19"}, max_novel=0).build(factors)
    classes = torch.ones(16, 1, dtype=torch.int64)
    values = torch.tensor([0.18, 0.2, 0.2, 0.2]).repeat(4).reshape(16, 1, 1)
    figure = coverage_figure(coverage_of_clips(split, classes, values))
    (seen, wide, _), (held_out, narrow, _) = painted(figure.axes[0])
    assert seen == pytest.approx(to_rgba("tab:blue")[:3]) and wide == pytest.approx(3 * narrow)
    assert held_out == pytest.approx(to_rgba("hotpink")[:3])
    assert [text.get_text() for text in figure.axes[0].texts] == ["12", "4"]


def test_a_png_lies_where_it_was_asked_for(tmp_path: Path) -> None:
    settings = dict(matplotlib.rcParams)
    write_coverage(tmp_path / "split.png", COVERAGES["240"])
    assert [path.name for path in tmp_path.iterdir()] == ["split.png"]
    with Image.open(tmp_path / "split.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    blue = np.round(np.array(to_rgba("tab:blue")[:3]) * 255)
    assert (np.abs(pixels - blue).max(1) <= 1).mean() > 0.2
    assert dict(matplotlib.rcParams) == settings


def test_a_page_gets_it_with_words() -> None:
    picture = coverage_picture(COVERAGES["2 x 2 x 2"])
    assert picture.source.startswith("data:image/svg+xml;base64,")
    assert "of 8 combinations: 4 seen, 3 level-1, 1 level-2" in picture.alt
