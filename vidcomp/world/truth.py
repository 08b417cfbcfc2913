"""What is true of a clip beside its factors: where its objects are, and what is seen of them.

Renderers make it, datasets of other people's clips fill in what their files tell, and it is stored
beside the clips. Objects are a padded set: `present` says which rows are objects at all.

Positions are in pixels, x to the right and y down; the centre of pixel (row i, column j) is x = j,
y = i, so that the mean index of a mask's pixels is its position.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Bool, Float, UInt8
from safetensors import SafetensorError
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.media import MediaError, write_bytes

MAX_OBJECTS = 255
"""Segments are bytes, and 0 is the ground."""

TIMELESS = ("present", "labelled", "clutter", "attributes")
"""What is true of an object throughout the clip."""


@dataclass(frozen=True)
class Truth:
    """`n` objects a clip, padded. What is not known of any object is None; a position that is not
    known (of some objects, in some frames) is NaN. Rows that are not present hold zeros, or NaN.

    `segments`: 0 for the ground, 1 + i where a pixel shows object i. `visibility`: the share of an
    object's own pixels that are seen, 0 if it is hidden or outside. `contacts`: whether, since the
    frame before, object i touched object j, or in the last column a wall or the floor's edge.

    `labelled`: of which objects a generator is told (`vidcomp.world.locations`). `clutter`: which
    ones do not count, and it is never told of. `attributes`: numbers that tell an object's looks;
    which ones is up to the dataset.
    """

    present: Bool[Tensor, "b n"]
    positions_px: Float[Tensor, "b t n 2"]
    velocities_px: Float[Tensor, "b t n 2"] | None = None  # pixels per frame
    positions: Float[Tensor, "b t n 3"] | None = None  # world units, of 3-D scenes
    segments: UInt8[Tensor, "b t h w"] | None = None
    visibility: Float[Tensor, "b t n"] | None = None
    contacts: Bool[Tensor, "b t n n+1"] | None = None
    labelled: Bool[Tensor, "b n"] | None = None
    clutter: Bool[Tensor, "b n"] | None = None
    attributes: Float[Tensor, "b n a"] | None = None

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: "Tensor | slice") -> "Truth":
        return Truth(**{name: x[rows] for name, x in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """What is known, by name."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: x for name, x in known.items() if x is not None}

    @classmethod
    def cat(cls, parts: Sequence["Truth"]) -> "Truth":
        """One batch after the other, with room for the most objects; what not all know is left
        out."""
        n = max(part.present.shape[1] for part in parts)
        known = [part.padded(n).tensors() for part in parts]
        names = shared_names(parts)
        return Truth(**{name: torch.cat([tensors[name] for tensors in known]) for name in names})

    def padded(self, n: int) -> "Truth":
        """The same with room for `n` objects; the new rows are not present, and zero."""
        old = self.present.shape[1]
        if n == old:
            return self
        if not old < n <= MAX_OBJECTS:
            raise UserError(f"{old} objects do not fit {n} rows; legal: {old} to {MAX_OBJECTS}")
        grown = self.tensors()
        for name, x in grown.items():
            if name == "segments":
                continue
            if name == "contacts":
                wider = x.new_zeros(*x.shape[:2], n, n + 1)
                wider[:, :, :old, :old], wider[:, :, :old, n] = x[..., :old], x[..., old]
            else:
                axis = 1 if name in TIMELESS else 2
                wider = x.new_zeros(*x.shape[:axis], n, *x.shape[axis + 1 :])
                wider.narrow(axis, 0, old).copy_(x)
            grown[name] = wider
        return Truth(**grown)

    def first_frames(self, num_frames: int) -> "Truth":
        """Of the first `num_frames` frames alone."""
        known = self.tensors()
        cut = {name: x[:, :num_frames] for name, x in known.items() if name not in TIMELESS}
        return Truth(**known | cut)

    def masks(self) -> Bool[Tensor, "b t n h w"]:
        """The pixels that show each object."""
        assert self.segments is not None, "this truth has no segments"
        ids = torch.arange(1, self.present.shape[1] + 1, device=self.segments.device)
        return self.segments[:, :, None] == ids[:, None, None]

    def boxes_px(self) -> Float[Tensor, "b t n 4"]:
        """Left, top, right, bottom pixel of what is seen of each object; NaN where nothing is."""
        masks = self.masks()
        edges: list[Tensor] = []
        for axis in (3, 4):  # seen in a column (rows removed), then in a row
            line = masks.any(axis).float()  # b t n w, then b t n h
            first, last = line.argmax(-1), line.shape[-1] - 1 - line.flip(-1).argmax(-1)
            edges += [first, last]
        left, right, top, bottom = edges
        boxes = torch.stack([left, top, right, bottom], dim=-1).float()
        return boxes.masked_fill(~masks.any(4).any(3)[..., None], torch.nan)


def shared_names(parts: Sequence[Truth]) -> set[str]:
    """What is known in all `parts`; attributes only if all tell as many."""
    known = [part.tensors() for part in parts]
    names = set.intersection(*(set(tensors) for tensors in known))
    if len({tensors["attributes"].shape[2] for tensors in known if "attributes" in tensors}) > 1:
        names.discard("attributes")
    return names


def truth_path(clip: Path) -> Path:
    """``x.truth.safetensors`` beside ``x.mp4``."""
    return clip.with_suffix(".truth.safetensors")


def write_truth(path: Path, truth: Truth, row: int) -> None:
    """One clip's truth. Most pixels have the segment of their neighbour, so those are deflated."""
    tensors = truth[row : row + 1].tensors()
    segments = tensors.pop("segments", None)
    if segments is not None:
        packed = zlib.compress(segments.numpy().tobytes(), 1)
        tensors["segments_deflated"] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        tensors["segments_shape"] = torch.tensor(segments.shape)
    content = {name: x.contiguous() for name, x in tensors.items()}
    write_bytes(path, safetensors.torch.save(content))


def read_truth(path: Path) -> Truth:
    """The inverse of `write_truth`, as a batch of one. Raises MediaError."""
    try:
        tensors = safetensors.torch.load(path.read_bytes())
        if "segments_shape" in tensors:
            shape = tensors.pop("segments_shape").tolist()
            packed = tensors.pop("segments_deflated").numpy().tobytes()
            flat = np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
            tensors["segments"] = torch.from_numpy(flat.reshape(shape).copy())
        return Truth(**tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, zlib.error):
        raise MediaError(f"{path} is damaged; copy or render the dataset again") from None
