"""Real clips and their reconstructions, as probes look at them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from vidcomp.datasets.base import Dataset
from vidcomp.pipeline import reconstruct
from vidcomp.probes.base import ClipSet
from vidcomp.runs import load_tokenizer, rows_for
from vidcomp.types import video_from_frames
from vidcomp.world.splits import Split

_CLIPS_AT_A_TIME = 64


def clip_set(
    dataset: Dataset,
    purpose: Literal["training", "scoring"],
    max_clips: int,
    *,
    seen_of: Split | None = None,
) -> ClipSet:
    """Real clips for `purpose`: those for scoring were never trained on by anything.

    With `seen_of`, only clips of the combinations that this split has as seen.
    """
    rows = clip_rows(dataset, purpose, seen_of=seen_of)[:max_clips]
    parts = [dataset.clips(chunk) for chunk in rows.split(_CLIPS_AT_A_TIME)]
    video = torch.cat([video_from_frames(part.frames) for part in parts])
    classes, values = (torch.cat([p.classes for p in parts]), torch.cat([p.values for p in parts]))
    return ClipSet(video, classes, values)


def clip_rows(
    dataset: Dataset,
    purpose: Literal["training", "scoring"],
    *,
    seen_of: Split | None = None,
) -> Int64[Tensor, " n"]:
    """Which clips those of `clip_set` are, if there is no limit to their number."""
    rows = rows_for(purpose, dataset)
    rows = rows[torch.isin(rows, dataset.longest())]
    if seen_of is not None:
        rows = rows[seen_of.seen(dataset.classes()[rows], dataset.values()[rows])]
    return rows


def with_reconstructions(real: ClipSet, tokenizers: Sequence[str]) -> dict[str, ClipSet]:
    """Real clips, and the same clips through each tokenizer."""
    sets = {"real": real}
    for folder in tokenizers:
        video = reconstruct(load_tokenizer(Path(folder)), real.video)
        sets[f"reconstruction by {Path(folder).name}"] = replace(real, video=video)
    return sets
