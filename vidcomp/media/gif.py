"""Animated pictures for pages that show no video: a README, an issue, a notebook."""

from pathlib import Path

import imageio.v3 as iio
from jaxtyping import UInt8
from torch import Tensor

from vidcomp.media.video import write_bytes


def write_gif(path: Path, clip: UInt8[Tensor, "t h w 3"], *, fps: float) -> None:
    """A looping GIF of at most 256 colours a frame: to look at, never to measure."""
    content = iio.imwrite("<bytes>", clip.numpy(), extension=".gif", duration=1000 / fps, loop=0)
    assert isinstance(content, bytes)
    write_bytes(path, content)
