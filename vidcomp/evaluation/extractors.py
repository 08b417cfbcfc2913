"""Feature extractors: networks whose features say how alike clips are. Never the one that judges.

    own         the project's own, fitted in half a minute on the run's data and kept
    FILE.pt     a TorchScript module: video ``b 3 t h w`` in [-1, 1] to ``b d``
    hf:NAME     a video model of `transformers`, such as hf:facebook/vjepa2-vitl-fpc64-256

The own one learns to tell all factors of a whole clip at once (`nn.features`), from clips of all
combinations, shifted, noisy, and a third of them blurred. It shares with the judge the labels and
nothing else: another architecture, another input, other weights. One that never sees a label
(contrastive, two shifted views of a clip) was tried and is no space for retrieval: of 8
combinations it puts 94 % of real clips next to their like, of 72 only 47 %, where this one reaches
100 % and 86 %, in half the time. It does not know the tokenizer, so that numbers compare between
tokenizers: reconstructions at 26 dB are all found, at 16 dB they are not, and the ceilings say so.
"""

import hashlib
import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vidcomp.config import UserError, first_line
from vidcomp.datasets.base import Dataset
from vidcomp.evaluation.clips import clip_set
from vidcomp.media import write_bytes
from vidcomp.nn.features import ClipNetwork
from vidcomp.nn.weights import reset
from vidcomp.pipeline import default_device
from vidcomp.probes import base as probes
from vidcomp.probes.base import ClipSet
from vidcomp.seeding import Rng
from vidcomp.types import Video, check_video

CACHE = Path("runs/cache/features")

OWN, TRANSFORMERS = "own", "hf:"
_CLIPS_AT_A_TIME = 64

_DIMENSIONS, _WIDTH, _STEPS, _BATCH, _LEARNING_RATE = 64, 16, 400, 32, 3e-3
_FITTED_CLIPS = 1600
_SEED = 20221  # any that no judge has
_BLURRED_SHARE, _NOISE, _SHIFT = 1 / 3, 0.1, 1 / 4  # the shift is of the frame's side

_IMAGE_MEAN, _IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as such models take it


@dataclass(frozen=True)
class Extractor:
    """`network`: clips to vectors. `digest` changes with its weights; `sees`: what it makes of a
    clip before it looks, in words."""

    name: str
    digest: str
    sees: str
    network: Callable[[Video], Tensor]

    @torch.no_grad()
    def __call__(self, video: Video) -> Float[Tensor, "b d"]:
        """Raises UserError, naming the extractor, unless it makes one finite vector of each
        clip."""
        check_video(video)
        device = default_device(None)
        parts = [self.network(part.to(device)).float() for part in video.split(_CLIPS_AT_A_TIME)]
        features = torch.cat(parts).cpu()
        if features.ndim != 2 or len(features) != len(video):
            raise UserError(
                f"the feature extractor {self.name} makes {tuple(features.shape)} of {len(video)} "
                "clips; it must make one vector of each: b d"
            )
        broken = int((~features.isfinite()).any(1).sum())
        if broken:
            raise UserError(
                f"the feature extractor {self.name} returned NaN or infinity for {broken} of "
                f"{len(video)} clips; use another one, such as features=own"
            )
        return features


def open_extractor(name: str, dataset: Dataset) -> Extractor:
    """The extractor of that name; the own one is fitted on training clips of `dataset` if no
    earlier run did so."""
    if name == OWN:
        return _own(dataset)
    if name.startswith(TRANSFORMERS):
        return _from_transformers(name)
    if Path(name).is_file():
        return _torch_script(Path(name))
    raise UserError(
        f"no feature extractor {name!r}; legal: {OWN}, the file of a TorchScript module, or "
        f"{TRANSFORMERS}NAME of a video model that transformers knows"
    )


def _own(dataset: Dataset) -> Extractor:
    factors = dataset.factors
    if not factors.items:
        raise UserError(
            f"features={OWN} learns to tell factors, and these clips have none; "
            "give features=FILE.pt or features=hf:NAME"
        )
    settings = (_DIMENSIONS, _WIDTH, _STEPS, _BATCH, _LEARNING_RATE, _FITTED_CLIPS, _SEED)
    key = hashlib.sha256(repr((dataset.fingerprint, settings)).encode()).hexdigest()[:12]
    network = ClipNetwork(dimensions=_DIMENSIONS, width=_WIDTH, class_counts=factors.sizes)
    path = CACHE / f"own-{key}.safetensors"
    if path.is_file():
        network.load_state_dict(safetensors.torch.load_file(path))
    else:
        print(f"fitting the feature extractor {path}, once for this dataset")
        _fit(network, clip_set(dataset, "training", _FITTED_CLIPS))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, safetensors.torch.save(network.state_dict()))
    network.eval().to(default_device(None))
    return Extractor(f"{OWN} ({_DIMENSIONS} dimensions)", _digest(network), "as they are", network)


@dataclass(frozen=True)
class _Learner:
    """What `probes.fit` trains."""

    network: ClipNetwork

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.network.parameters()

    def loss(self, sets: Mapping[str, ClipSet], rng: Rng) -> Float[Tensor, " b"]:
        """Cross-entropy, summed over factors, of one clip for each stream of `rng`."""
        clips = sets["real"]
        rows = rng.fold("clip").integers(len(clips.video), 1)[:, 0]
        video = _augmented(clips.video[rows], rng.fold("augment"))
        losses = torch.zeros(len(rng))
        for f, logits in enumerate(self.network.logits(self.network(video))):
            losses = losses + F.cross_entropy(logits, clips.classes[rows, f], reduction="none")
        return losses


def _fit(network: ClipNetwork, clips: ClipSet) -> None:
    reset(network, Rng.make(_SEED, "extractor weights", torch.zeros(1, dtype=torch.int64)))
    network.train()
    probes.fit(
        _Learner(network),
        {"real": clips},
        steps=_STEPS,
        batch_size=_BATCH,
        learning_rate=_LEARNING_RATE,
        seed=_SEED,
    )


def _augmented(video: Video, rng: Rng) -> Video:
    """Shifted, all frames alike; a third blurred; with noise."""
    b, _, _, h, w = video.shape
    margins = (int(h * _SHIFT), int(w * _SHIFT))
    padded = F.pad(video, (margins[1],) * 2 + (margins[0],) * 2 + (0, 0), mode="replicate")
    down, right = (
        rng.fold(name).integers(2 * margin + 1, 1) + torch.arange(size)
        for name, margin, size in (("down", margins[0], h), ("right", margins[1], w))
    )
    clip = torch.arange(b)[:, None, None]
    moved = padded[clip, :, :, down[:, :, None], right[:, None]]  # b h w c t
    moved = moved.permute(0, 3, 4, 1, 2)
    blurred = rng.fold("blurred").bernoulli(_BLURRED_SHARE, 1, 1, 1, 1)
    moved = torch.where(blurred, F.avg_pool3d(moved, (1, 3, 3), 1, (0, 1, 1)), moved)
    sigma = _NOISE * rng.fold("sigma").uniform(1, 1, 1, 1)
    noise = (rng.fold("noise").uniform(*video.shape[1:]) - 0.5) * math.sqrt(12)  # variance 1
    return moved + sigma * noise


def _torch_script(path: Path) -> Extractor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of the format
            module = torch.jit.load(path, map_location=default_device(None)).eval()
    except RuntimeError as error:
        raise UserError(f"{path} is no TorchScript module: {first_line(error)}") from None

    def network(video: Video) -> Tensor:
        try:
            return module(video)
        except RuntimeError as error:
            why = str(error).strip().splitlines()[-1]
            raise UserError(
                f"the feature extractor {path} cannot take clips 'b 3 t h w' of shape "
                f"{tuple(video.shape)}: {why}"
            ) from None

    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return Extractor(str(path), digest, "as they are", network)


def _from_transformers(name: str) -> Extractor:
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise UserError(
            f"features={name} needs transformers, which is not installed; "
            "pip install transformers, or use features=own"
        ) from None
    try:
        model: Any = transformers.AutoModel.from_pretrained(name.removeprefix(TRANSFORMERS))
    except (OSError, ValueError) as error:
        raise UserError(f"features={name} cannot be loaded: {first_line(error)}") from None
    model.eval().to(default_device(None))
    about = model.config
    side = getattr(about, "crop_size", None) or getattr(about, "image_size", None)
    if model.main_input_name not in ("pixel_values", "pixel_values_videos") or side is None:
        raise UserError(f"features={name} is not a video model: it takes {model.main_input_name}")
    # With rotary positions (V-JEPA 2) any length goes; with learned ones only the trained one.
    is_free = about.model_type == "vjepa2"
    num_frames = None if is_free else getattr(about, "num_frames", None)
    mean, std = (torch.tensor(c).reshape(3, 1, 1, 1) for c in (_IMAGE_MEAN, _IMAGE_STD))

    def network(video: Video) -> Tensor:
        t = num_frames or -(-video.shape[2] // about.tubelet_size) * about.tubelet_size
        frames = torch.linspace(0, video.shape[2] - 1, t).round().long()
        pixels = ((video[:, :, frames] + 1) / 2 - mean.to(video)) / std.to(video)
        pixels = F.interpolate(pixels, size=(t, side, side), mode="trilinear", align_corners=False)
        inputs = {model.main_input_name: pixels.transpose(1, 2)}  # b t c h w
        return model(**inputs).last_hidden_state.mean(1)

    sees = f"{num_frames or 'all'} frames of {side} x {side}"
    return Extractor(name, _digest(model), sees, network)


def _digest(network: nn.Module) -> str:
    """Twelve hex digits of the weights."""
    content = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        content.update(key.encode())
        content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()[:12]
