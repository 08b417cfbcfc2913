"""Pictures to look at, never to measure: for pages that show no video, a README or a notebook."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vidcomp.media.video import write_bytes

_LOOKED_AT = 2**18
"""Pixels from which the palette is made."""


def write_gif(path: Path, clip: UInt8[Tensor, "t h w 3"], *, fps: float) -> None:
    """A looping GIF. All frames share one palette of 256 colours, so that what stands still does
    not flicker."""
    pixels = clip.reshape(1, -1, 3)
    some = pixels[:, :: pixels.shape[1] // _LOOKED_AT | 1]  # odd: not always the same columns
    palette = Image.fromarray(some.numpy()).quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    frames: list[np.ndarray] = []
    for image in clip.numpy():
        few = Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE)
        frames.append(np.asarray(few.convert("RGB")))
    shown_ms = 1000 / fps
    content = iio.imwrite("<bytes>", np.stack(frames), extension=".gif", duration=shown_ms, loop=0)
    write_bytes(path, content)


def write_png(path: Path, image: UInt8[Tensor, "h w 3"]) -> None:
    """A picture, without loss."""
    write_bytes(path, iio.imwrite("<bytes>", image.numpy(), extension=".png", optimize=True))
