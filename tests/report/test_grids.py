"""What a grid shows: the clips, pixel for pixel, and the judge's verdicts."""

import torch

from vidcomp.report.grids import Row, draw, verdict_words
from vidcomp.world.concepts import choose

FACTORS = choose({"shape": ["circle", "triangle"], "colour": ["red", "blue"]})
ASKED = torch.tensor([0, 1])  # a blue circle


def words(*verdicts: tuple[int, int]) -> str:
    return " ".join(text for text, _ in verdict_words(torch.tensor(verdicts), ASKED, FACTORS))


def test_a_verdict_is_a_tick_only_if_all_is_right_in_all_frames() -> None:
    assert words((0, 1), (0, 1), (0, 1)) == "✓"
    assert words((0, 1), (1, 1), (0, 1)) == "triangle? blue"
    assert words((1, 0), (1, 0), (0, 1)) == "triangle? red?"
    assert words((0, -1), (0, -1), (0, 0)) == "circle ?"  # mostly unreadable


def test_clips_are_shown_whole_enlarged_and_at_their_time() -> None:
    frames = torch.randint(0, 256, (2, 3, 96, 64, 3), dtype=torch.uint8)
    verdicts = ASKED.repeat(2, 3, 1)
    verdicts[1, 2] = torch.tensor([1, 1])  # the last frame of the second clip is wrong
    video = draw([Row("model", frames, verdicts)], ASKED.repeat(2, 1), FACTORS, num_held=2)
    assert len(video) == 3 + 2
    assert torch.equal(video[3], video[2]) and torch.equal(video[4], video[2])
    for n in range(2):
        large = frames[n].repeat_interleave(2, 1).repeat_interleave(2, 2)  # 96 px to 192
        top, left = _find(video[0], large[0])
        assert torch.equal(video[:3, top : top + 192, left : left + 128], large)


def test_the_strip_marks_the_frame_that_is_shown_and_whether_it_is_right() -> None:
    frames = torch.zeros(1, 2, 96, 96, 3, dtype=torch.uint8)
    verdicts = torch.tensor([[[0, 1], [1, 1]]])  # right, then wrong
    video = draw([Row("model", frames, verdicts)], ASKED[None], FACTORS, num_held=0).int()
    changed = (video[0] != video[1]).any(-1)
    rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
    assert len(rows) == 12 and len(columns) <= 192  # only the strip changes between equal frames
    middle, bottom = int(columns.float().mean()), int(rows.amax())
    left, right = video[:, bottom, middle - 40], video[:, bottom, middle + 40]
    assert left[0, 1] == left[0].amax() and left[0].sum() < left[1].sum()  # green, dark at first
    assert right[1, 0] == right[1].amax() and right[1].sum() < right[0].sum()  # red, dark at last


def _find(page: torch.Tensor, patch: torch.Tensor) -> tuple[int, int]:
    """Where `patch` stands in `page`."""
    corner = (page == patch[0, 0]).all(-1).nonzero().tolist()
    height, width = patch.shape[:2]
    places = [(y, x) for y, x in corner if torch.equal(page[y : y + height, x : x + width], patch)]
    assert len(places) == 1
    return places[0]
