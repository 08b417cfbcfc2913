"""Masks in COCO's run-length code.

COCO writes a mask as the lengths of its runs, in columns from the top left, the first run empty
pixels. In the compressed form (``counts`` is a string) a length takes as many characters as it
needs: five bits each, from the low end, the sixth bit says that more follow, and from the third
length on it is the difference to the length two before it. Known from pycocotools, whose masks the
tests compare with; it is not needed here.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor


def mask_from_rle(rle: Mapping[str, Any]) -> Bool[Tensor, "h w"]:
    """The mask of ``{"size": [h, w], "counts": "..."}``. Raises ValueError."""
    height, width = rle["size"]
    runs = torch.tensor(_run_lengths(rle["counts"]))
    if (len(runs) and runs.amin() < 0) or int(runs.sum()) != height * width:
        raise ValueError(f"the runs of a mask do not fill its {height}x{width} pixels")
    flat = (torch.arange(len(runs)) % 2 == 1).repeat_interleave(runs)
    return flat.reshape(width, height).T.contiguous()


def _run_lengths(counts: str) -> list[int]:
    runs: list[int] = []
    length = shift = 0
    for character in counts:
        bits = ord(character) - 48
        length |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # the sign of the last five bits is that of the whole
            length -= 1 << shift
        runs.append(length + runs[-2] if len(runs) > 2 else length)
        length = shift = 0
    return runs
