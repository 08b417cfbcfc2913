"""Real clips and their reconstructions, as probes look at them; and those whose places samples are
asked for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.datasets.base import Data, DataConfig, Dataset, build
from vidcomp.pipeline import reconstruct
from vidcomp.probes.base import ClipSet
from vidcomp.runs import load_tokenizer, read_environment, rows_for
from vidcomp.storage import prepare
from vidcomp.types import video_from_frames
from vidcomp.world.locations import Locations
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
    return clips_at(dataset, clip_rows(dataset, purpose, seen_of=seen_of)[:max_clips])


def clips_at(dataset: Dataset, rows: Int64[Tensor, " n"]) -> ClipSet:
    """The clips in these rows."""
    parts = [dataset.clips(chunk) for chunk in rows.split(_CLIPS_AT_A_TIME)]
    video = torch.cat([video_from_frames(part.frames) for part in parts])
    classes, values = (torch.cat([p.classes for p in parts]), torch.cat([p.values for p in parts]))
    known = [part.locations for part in parts if part.locations is not None]
    return ClipSet(video, classes, values, Locations.cat(known) if known else None)


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


def asked_rows(
    dataset: Dataset, split: Split, num_clips: int, levels: Sequence[str]
) -> Int64[Tensor, " n"]:
    """Fresh clips to ask for again: `num_clips` of each of `levels`, evenly over its cells as
    `Split.requests` has them. Where a cell has fewer clips than requests, they take turns."""
    rows = clip_rows(dataset, "scoring")
    cells = split.cells.ids(dataset.classes()[rows], dataset.values()[rows])
    chosen: list[Tensor] = []
    for level in levels:
        requests = split.requests(level, num_clips)
        asked = split.cells.ids(*requests)
        taken = torch.zeros_like(asked)
        for cell in asked.unique():
            here, fresh = (asked == cell).nonzero()[:, 0], rows[cells == cell]
            if not len(fresh):
                shown = split.factors.describe(requests.classes[here[0]])
                raise UserError(
                    f"no fresh clip shows '{shown}', whose places samples could be asked for; give "
                    "the dataset more clips"
                )
            taken[here] = fresh[torch.arange(len(here)) % len(fresh)]
        chosen.append(taken)
    return torch.cat(chosen)


def data_of(folder: Path, config: DataConfig) -> Data:
    """The data of the run in `folder`; raises UserError if it is not what it was trained on."""
    prepare(config)
    data = build(config)
    if data.dataset.fingerprint != read_environment(folder)["dataset"]:
        raise UserError(
            f"the dataset is not the one that {folder} was trained on: its fresh clips may be the "
            "other's training clips; restore it, or train again"
        )
    return data


def with_reconstructions(real: ClipSet, tokenizers: Sequence[str]) -> dict[str, ClipSet]:
    """Real clips, and the same clips through each tokenizer."""
    sets = {"real": real}
    for folder in tokenizers:
        video = reconstruct(load_tokenizer(Path(folder)), real.video)
        sets[f"reconstruction by {Path(folder).name}"] = replace(real, video=video)
    return sets
