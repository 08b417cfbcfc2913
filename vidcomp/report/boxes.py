"""Boxes around what is seen of each object: what the truth says, drawn onto the clip.

Bold where an object touches something. Where a generator is told the places of some objects, those
have a solid box and the others that are counted a dashed one; clutter, which nobody asks for, has
none.
"""

import torch
from jaxtyping import Float, UInt8
from matplotlib.colors import to_rgb
from torch import Tensor

from vidcomp.world.truth import Truth

LEGEND = (
    "solid box: a generator is told where it is; dashed: it counts, but nobody is told of it; "
    "no box: clutter"
)

_COLOURS = ("gold", "cyan", "magenta", "lime", "white", "orange", "violet", "aquamarine")
_DASH_PX = 4


def draw_boxes(frames: UInt8[Tensor, "b t h w 3"], truth: Truth, *, scale: int) -> None:
    """In place, on frames that are enlarged by `scale`."""
    boxes = truth_boxes(truth)
    for b, t, n in boxes.isfinite().all(-1).nonzero().tolist():
        if truth.clutter is not None and truth.clutter[b, n]:
            continue
        image = frames[b, t]
        touches = truth.contacts is not None and bool(truth.contacts[b, t, n].any())
        line = 3 if touches else 1
        first = boxes[b, t, n, :2].floor().clamp_min(0).long() * scale
        last = (boxes[b, t, n, 2:].ceil().clamp_min(-1).long() + 1) * scale
        (left, top), (right, bottom) = first.tolist(), last.tolist()
        inside = image[top:bottom, left:right].clone()
        outer = image[max(top - line, 0) : bottom + line, max(left - line, 0) : right + line]
        drawn = torch.ones(outer.shape[:2], dtype=torch.bool)
        if truth.labelled is not None and not truth.labelled[b, n]:
            y, x = (torch.arange(side) // _DASH_PX for side in outer.shape[:2])
            drawn = (y[:, None] + x) % 2 == 0
        outer[drawn] = rgb(_COLOURS[n % len(_COLOURS)])
        image[top:bottom, left:right] = inside


def truth_boxes(truth: Truth) -> Float[Tensor, "b t n 4"]:
    """Left, top, right, bottom pixel of what is seen of each object; where only its place is known,
    of the pixels next to it. NaN where nothing is."""
    if truth.segments is not None:
        return truth.boxes_px()
    places = truth.positions_px
    boxes = torch.cat([places - 1, places + 1], dim=-1)
    return boxes.masked_fill(~truth.present[:, None, :, None], torch.nan)


def rgb(colour: str) -> UInt8[Tensor, " 3"]:
    return torch.tensor(to_rgb(colour)).mul(255).round().to(torch.uint8)
