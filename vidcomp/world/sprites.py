"""The renderer: flat, anti-aliased sprites, one in front of the other, from signed distances.

In a window around an object, every pixel evaluates the signed distance d to the outline, and its
coverage is ``clamp(0.5 - d, 0, 1)`` with d in pixels: a ramp one pixel wide, whose integral is the
shape's area. Objects are laid over the background from the first to the last; pixels that one does
not cover cost next to nothing, so many small objects are as fast as a large one.

Tensors only, any device, a pure function of the scene; only elementwise operations, so that a clip
has the same pixels in any batch.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vidcomp.types import Frames
from vidcomp.world.shapes import EXTENT, SHAPES, signed_distance
from vidcomp.world.textures import DARKENING, TEXTURES, Background, paint_background, pattern
from vidcomp.world.truth import Truth

CHUNK_PIXELS = 300_000
"""Of the clips that are rendered at a time: larger temporaries are two to three times slower on a
CPU."""

_MARGIN_PX = 2  # the ramp outside a sharp corner


@dataclass(frozen=True)
class Scene:
    """What is to be seen: `n` objects a clip, padded.

    Lengths are fractions of the frame's shorter side; y points down. What is None is left out:
    objects are opaque and plain, the last is in front, the background is dark, the light white; the
    truth has no velocities or contacts.
    """

    present: Bool[Tensor, "b n"]
    centres: Float[Tensor, "b t n 2"]
    radius: Float[Tensor, "b n"]
    angle_rad: Float[Tensor, "b t n"]  # clockwise
    rgb: Float[Tensor, "b n 3"]
    shape: Int64[Tensor, "b n"]  # index into SHAPES
    texture: Int64[Tensor, "b n"] | None = None  # index into TEXTURES
    opacity: Float[Tensor, "b t n"] | None = None
    layers: Int64[Tensor, "b n"] | None = None  # the objects from the back to the front
    background: Background | None = None
    light: Float[Tensor, " b"] | None = None  # on everything, 1 is white
    velocities: Float[Tensor, "b t n 2"] | None = None  # per frame
    contacts: Bool[Tensor, "b t n n+1"] | None = None

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: "Tensor | slice") -> "Scene":
        everything: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        known = {name: x[rows] for name, x in everything.items() if x is not None}
        return Scene(**known)


@dataclass(frozen=True)
class Rendered:
    """Clips, and what their truth is made from: training asks for the frames alone.

    An object's own pixels are those that it covers by half or more, in the frame or out of it.
    """

    scene: Scene
    frames: Frames
    segments: UInt8[Tensor, "b t h w"]
    own_pixels: Float[Tensor, "b t n"]

    @property
    def truth(self) -> Truth:
        unit_px = min(self.frames.shape[2:4])
        velocities = self.scene.velocities
        return Truth(
            present=self.scene.present,
            positions_px=self.scene.centres * unit_px - 0.5,
            velocities_px=None if velocities is None else velocities * unit_px,
            segments=self.segments,
            visibility=self._seen_pixels() / self.own_pixels.clamp_min(1),
            contacts=self.scene.contacts,
        )

    def _seen_pixels(self) -> Float[Tensor, "b t n"]:
        b, t, n = self.own_pixels.shape
        flat = self.segments.reshape(-1)
        shown = flat.nonzero()[:, 0]
        ids = shown // math.prod(self.segments.shape[2:]) * n + flat[shown] - 1
        return ids.bincount(minlength=b * t * n).reshape(b, t, n).float()


def render(scene: Scene, *, height: int, width: int) -> Rendered:
    """Draw `scene`."""
    clips = max(1, CHUNK_PIXELS // (scene.centres.shape[1] * height * width))
    chunks = [
        _draw(scene[i : i + clips], height=height, width=width)
        for i in range(0, max(len(scene), 1), clips)
    ]
    return Rendered(
        scene=scene,
        frames=torch.cat([chunk.frames for chunk in chunks]),
        segments=torch.cat([chunk.segments for chunk in chunks]),
        own_pixels=torch.cat([chunk.own_pixels for chunk in chunks]),
    )


def _draw(scene: Scene, *, height: int, width: int) -> Rendered:
    b, t, n = scene.angle_rad.shape
    device = scene.radius.device
    ground = paint_background(scene.background, clips=b, height=height, width=width, device=device)
    if scene.light is not None:
        ground = ground * scene.light[:, None, None, None]
    frames = _bytes(ground)[:, None].repeat(1, t, 1, 1, 1).reshape(-1, 3)
    # What the next layer is laid over, in every frame; the ground, if there is no other layer.
    canvas = ground[:, None].expand(-1, t if n > 1 else 1, -1, -1, -1).reshape(-1, 3)
    segments = torch.zeros(len(frames), dtype=torch.uint8, device=device)
    own_pixels = torch.zeros(b, t, n, device=device)
    layers = torch.arange(n, device=device).expand(b, n) if scene.layers is None else scene.layers
    for layer in range(n):
        rows = scene.present.gather(1, layers[:, layer : layer + 1])[:, 0].nonzero()[:, 0]
        if not len(rows):
            continue
        # Those of one shape stand together, so that each shape is a slice.
        rows = rows[scene.shape[rows, layers[rows, layer]].argsort(stable=True)]
        which = layers[rows, layer]
        patch = _patch(scene, rows, which, height=height, width=width)
        pixel = patch.pixel_of(rows, t, height * width)
        place = pixel if n > 1 else patch.pixel_of(rows, 1, height * width)
        # index_select and index_copy_ take a third of the time of canvas[place].
        under = canvas.index_select(0, place)
        painted = patch.rgb.sub_(under).mul_(patch.alpha[:, None]).add_(under)
        if layer < n - 1:
            canvas.index_copy_(0, place, painted)
        # Only what is touched: most pixels are ground.
        frames.index_copy_(0, pixel, _bytes(painted))
        ids = (which + 1).to(torch.uint8).repeat_interleave(t).index_select(0, patch.window)
        ids = ids.where(patch.alpha >= 0.5, segments.index_select(0, pixel))
        segments.index_copy_(0, pixel, ids)
        own_pixels[rows, :, which] = patch.own_pixels
    return Rendered(
        scene=scene,
        frames=frames.reshape(b, t, height, width, 3),
        segments=segments.reshape(b, t, height, width),
        own_pixels=own_pixels,
    )


def _bytes(rgb: Float[Tensor, "*n 3"]) -> UInt8[Tensor, "*n 3"]:
    return rgb.mul(255).round_().clamp_(0, 255).to(torch.uint8)


class _Patch(NamedTuple):
    """The `m` pixels that one object in each of `r` clips touches.

    A window is one clip's in one frame, ``r t`` of them; `window` says in which one a pixel lies,
    and `place` where in the frame.
    """

    window: Int64[Tensor, " m"]
    place: Int64[Tensor, " m"]
    alpha: Float[Tensor, " m"]
    rgb: Float[Tensor, "m 3"]
    own_pixels: Float[Tensor, "r t"]

    def pixel_of(
        self, rows: Int64[Tensor, " r"], num_frames: int, frame_pixels: int
    ) -> Int64[Tensor, " m"]:
        """The pixels in a stack of frames, `num_frames` for each clip (or a single one)."""
        t = self.own_pixels.shape[1]
        frame = rows[:, None] * num_frames + torch.arange(t, device=rows.device) % num_frames
        return (frame.flatten() * frame_pixels).index_select(0, self.window) + self.place


def _patch(
    scene: Scene, rows: Int64[Tensor, " r"], which: Int64[Tensor, " r"], *, height: int, width: int
) -> _Patch:
    """Object `which` of the clips `rows`, drawn in square windows around it, cut at the frame."""
    unit_px = min(height, width)
    t = scene.angle_rad.shape[1]
    radius_px = scene.radius[rows, which] * unit_px
    size = 2 * math.ceil(EXTENT * float(radius_px.amax()) + _MARGIN_PX) + 1
    radius_px = rearrange(radius_px, "r -> r 1 1 1")
    centre_px = rearrange(scene.centres[rows, :, which] * unit_px, "r t xy -> xy r t 1")
    step = torch.arange(size, device=rows.device)
    left, top = centre_px.floor().long() - size // 2  # r t 1 each
    column, line = left + step, top + step
    dx = (column + 0.5 - centre_px[0])[:, :, None] / radius_px  # r t 1 s
    dy = (line + 0.5 - centre_px[1])[..., None] / radius_px  # r t s 1
    angle = scene.angle_rad[rows, :, which, None, None]
    cos, sin = angle.cos(), angle.sin()
    x, y = cos * dx + sin * dy, cos * dy - sin * dx  # r t s s: turned back by the angle
    coverage = _coverage(scene.shape[rows, which], x, y, radius_px)

    inside = ((column >= 0) & (column < width))[:, :, None]
    inside = inside & ((line >= 0) & (line < height))[..., None]
    touched = ((coverage > 0) & inside).flatten(2).flatten(0, 1)
    window, cell = touched.nonzero().unbind(1)
    hit = window * size**2 + cell
    first, ahead = (top * width + left).flatten(), (step[:, None] * width + step).flatten()
    place = first.index_select(0, window) + ahead.index_select(0, cell)
    alpha = coverage.flatten().index_select(0, hit)
    if scene.opacity is not None:
        alpha = alpha * scene.opacity[rows, :, which].flatten().index_select(0, window)
    rgb = scene.rgb[rows, which]
    if scene.light is not None:
        rgb = rgb * scene.light[rows, None]
    rgb = rgb.repeat_interleave(t, dim=0).index_select(0, window)
    if scene.texture is not None:
        clip = window // t
        texture, pixel = scene.texture[rows, which][clip], (1 / radius_px.flatten())[clip]
        darker = _textured(texture, x.flatten()[hit], y.flatten()[hit], pixel)
        rgb = rgb * (1 - DARKENING * darker)[:, None]
    own_pixels = (coverage >= 0.5).sum((2, 3)).float()
    return _Patch(window, place, alpha, rgb, own_pixels)


def _coverage(
    shape: Int64[Tensor, " r"],
    x: Float[Tensor, "r t s s"],
    y: Float[Tensor, "r t s s"],
    radius_px: Float[Tensor, "r 1 1 1"],
) -> Float[Tensor, "r t s s"]:
    """The share of each pixel that is covered; `shape` is sorted."""
    kinds, counts = shape.unique_consecutive(return_counts=True)
    parts = zip(kinds.tolist(), x.split(counts.tolist()), y.split(counts.tolist()), strict=True)
    distance = torch.cat([signed_distance(SHAPES[kind], x, y) for kind, x, y in parts])
    return (0.5 - distance.mul_(radius_px)).clamp_(0, 1)


def _textured(
    texture: Int64[Tensor, " m"],
    x: Float[Tensor, " m"],
    y: Float[Tensor, " m"],
    pixel: Float[Tensor, " m"],
) -> Float[Tensor, " m"]:
    """Where an object is darker; `pixel` is the size of one, in radii."""
    darker = torch.zeros_like(x)
    for kind in texture.unique().tolist():
        at = (texture == kind).nonzero()[:, 0]
        darker[at] = pattern(TEXTURES[kind], x[at], y[at], pixel[at])
    return darker
