"""Truth: rows, padding and boxes."""

from dataclasses import replace
from pathlib import Path

import torch

from vidcomp.world.truth import TIMELESS, Truth, read_truth, write_truth


def two_clips() -> Truth:
    """Clip 0: one pixel of object 0, a bar of object 1; clip 1: object 0 hidden."""
    segments = torch.zeros(2, 1, 4, 5, dtype=torch.uint8)
    segments[0, 0, 1, 2] = 1
    segments[:, 0, 2:, 3] = 2
    contacts = torch.zeros(2, 1, 2, 3, dtype=torch.bool)
    contacts[:, :, 0, 1] = contacts[:, :, 1, 0] = contacts[:, :, 1, 2] = True
    return Truth(
        present=torch.ones(2, 2, dtype=torch.bool),
        positions_px=torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)),
        segments=segments,
        contacts=contacts,
        labelled=torch.tensor([[True, False], [True, True]]),
        clutter=torch.tensor([[False, True], [False, False]]),
        attributes=torch.arange(12.0).reshape(2, 2, 3),
    )


def test_boxes_hold_the_masks_and_are_nan_where_nothing_is_seen() -> None:
    boxes = two_clips().boxes_px()
    assert boxes[0, 0].tolist() == [[2, 1, 2, 1], [3, 2, 3, 3]]
    assert boxes[1, 0, 0].isnan().all()
    assert boxes[1, 0, 1].tolist() == [3, 2, 3, 3]


def test_padding_adds_absent_objects_and_keeps_the_wall_in_the_last_column() -> None:
    truth = two_clips()
    wide = truth.padded(4)
    assert wide.present.tolist() == [[True, True, False, False]] * 2
    assert torch.equal(wide.masks()[:, :, :2], truth.masks())
    assert not wide.masks()[:, :, 2:].any()
    assert wide.contacts is not None and truth.contacts is not None
    assert torch.equal(wide.contacts[:, :, :2, 4], truth.contacts[..., 2])
    assert torch.equal(wide.contacts[:, :, :2, :2], truth.contacts[..., :2])
    assert int(wide.contacts.sum()) == int(truth.contacts.sum())
    for name in TIMELESS:
        ours, theirs = truth.tensors()[name], wide.tensors()[name]
        assert torch.equal(theirs[:, :2], ours) and not theirs[:, 2:].any(), name


def test_cat_is_the_inverse_of_taking_rows_and_keeps_what_all_know() -> None:
    truth = two_clips()
    again = Truth.cat([truth[:1], truth[1:]])
    assert all(torch.equal(x, again.tensors()[name]) for name, x in truth.tensors().items())
    without = Truth(truth.present, truth.positions_px)
    assert Truth.cat([truth, without]).segments is None
    assert Truth.cat([truth.padded(3), truth]).present.shape == (4, 3)
    other_looks = replace(truth, attributes=torch.zeros(2, 2, 1))
    assert Truth.cat([truth, other_looks]).tensors().keys() == truth.tensors().keys() - {
        "attributes"
    }


def test_fewer_frames_keep_what_is_true_of_all_of_them(tmp_path: Path) -> None:
    """And what is read is what was written."""
    truth = two_clips()
    twice = {name: torch.cat([x, x], 1) for name, x in truth.tensors().items()}
    still = {name: x for name, x in truth.tensors().items() if name in TIMELESS}
    long = Truth(**twice | still)
    assert long.positions_px.shape[1] == 2
    for x in (long.first_frames(1), read(long.first_frames(1), tmp_path / "a")):
        assert x.tensors().keys() == truth.tensors().keys()
        assert all(torch.equal(x.tensors()[name], y) for name, y in truth.tensors().items())


def read(truth: Truth, path: Path) -> Truth:
    """Through a file for each clip."""
    parts: list[Truth] = []
    for row in range(len(truth)):
        write_truth(path, truth, row)
        parts.append(read_truth(path))
    return Truth.cat(parts)
