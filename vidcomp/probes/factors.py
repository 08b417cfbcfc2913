"""The trained judge: one small network for each factor, which reads it back from one frame.

A temporal factor (motion) is read from two neighbouring frames, k-1 and k, as one image of six
channels. A step of 1 to 1.6 pixels of 32 is enough: along the outline, the sign of the change and
the side of the edge tell the direction together, so no wider window is needed.

A judge fitted on clean clips misreads blurry ones, and differently so on each level: it fakes the
very effect that is being looked for. So it is fitted on real clips and on their reconstructions by
every tokenizer in use, a third of them blurred 3 x 3, with noise, and on **all** combinations: a
set that lacks one is refused. Its accuracy on held-out clips of each source is stored with it.

One more network tells whether there is anything to read: frames that show next to nothing are
`UNREADABLE` in every factor (`base_spoiled`).
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from pydantic import Field
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vidcomp.config import UserError
from vidcomp.nn.classifier import Classifier
from vidcomp.nn.weights import reset
from vidcomp.probes import base
from vidcomp.probes.base import ClipSet, Progress, Score, proportion, refuse_no_factors
from vidcomp.probes.base_spoiled import spoiled
from vidcomp.seeding import Rng
from vidcomp.types import Video, check_video
from vidcomp.world.factors import Factor, Factors
from vidcomp.world.scenes import check_frames

_BLURRED_SHARE = 1 / 3
_CLIPS_AT_A_TIME = 64


class Config(base.Config):
    """`noise` is the largest standard deviation of the noise in training, of pixels in [-1, 1]."""

    width: int = Field(default=16, ge=1)
    steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=96, ge=2)
    learning_rate: float = Field(default=3e-3, gt=0)
    noise: float = Field(default=0.1, ge=0)

    def build(self, factors: Factors) -> "Judge":
        return Judge(self, factors)


class Judge(base.TrainedJudge):
    """Reads every factor with a network of its own. `frame_size` is None until it is fitted."""

    def __init__(self, config: Config, factors: Factors) -> None:
        refuse_no_factors(factors)
        self.config = config
        self.factors = factors
        self.frame_size: tuple[int, int] | None = None  # height, width
        self.accuracy: dict[str, dict[str, Score]] = {}
        self.classifiers = [
            Classifier(6 if f.temporal else 3, num_classes=len(f.classes), width=config.width)
            for f in factors.items
        ]
        self.intact = Classifier(3, num_classes=2, width=config.width)  # spoiled, intact
        self.networks = nn.ModuleList([*self.classifiers, self.intact])

    def fit(
        self,
        sets: Mapping[str, ClipSet],
        *,
        seed: int,
        combinations: Literal["all", "seen"] = "all",
        progress: Progress | None = None,
    ) -> None:
        """Fresh weights, then `base.fit`: the same `seed` and `sets` give the same judge."""
        self._refuse_unfit(sets)
        if combinations == "all":
            self._refuse_missing_combinations(sets)
        video = next(iter(sets.values())).video
        self.frame_size = _frame_size(video)
        self.accuracy = {}
        self.networks.to(video.device)
        rng = Rng.make(seed, "probe weights", torch.zeros(1, dtype=torch.int64))
        for factor, network in self._readers():
            reset(network, rng.fold(factor.name))
        reset(self.intact, rng.fold("is it intact?"))
        self.networks.train()
        base.fit(
            self,
            sets,
            steps=self.config.steps,
            batch_size=self.config.batch_size,
            learning_rate=self.config.learning_rate,
            seed=seed,
            progress=progress,
        )
        self.networks.eval()

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.networks.parameters()

    def loss(self, sets: Mapping[str, ClipSet], rng: Rng) -> Float[Tensor, " b"]:
        """Cross-entropy, summed over factors, of one pair of frames for each stream of `rng`; and
        that of telling its frame from a spoiled one."""
        shares = [rng[i :: len(sets)] for i in range(len(sets))]  # as many clips from each source
        drawn = [_draw_pairs(c, share) for c, share in zip(sets.values(), shares, strict=True)]
        pairs = torch.cat([pair for pair, _ in drawn])  # b c 2 h w
        classes = torch.cat([label for _, label in drawn])  # b f
        pairs = self._augment(pairs, rng.fold("augment"))
        which = rng.fold("which").integers(2, 1)[:, 0]
        frames = pairs[torch.arange(len(pairs)), :, which]  # b c h w: a static factor sees either
        losses = pairs.new_zeros(len(pairs))
        for f, (factor, network) in enumerate(self._readers()):
            images = rearrange(pairs, "b c frames h w -> b (frames c) h w")
            logits = network(images if factor.temporal else frames)
            losses = losses + F.cross_entropy(logits, classes[:, f], reduction="none")
        both = torch.cat([spoiled(frames, rng.fold("spoiled")), frames])
        is_intact = torch.arange(2, device=both.device).repeat_interleave(len(frames))
        told = F.cross_entropy(self.intact(both), is_intact, reduction="none")
        return losses + told.unflatten(0, (2, -1)).mean(0)

    @torch.no_grad()
    def read(self, video: Video) -> Int64[Tensor, "b t f"]:
        """The likeliest class of each factor in each frame, `UNREADABLE` in all where the frame
        shows next to nothing."""
        check_video(video)
        self._refuse_unreadable(video)
        self.networks.to(video.device)
        return torch.cat([self._read_chunk(c.float()) for c in video.split(_CLIPS_AT_A_TIME)])

    def check(self, sets: Mapping[str, ClipSet]) -> dict[str, dict[str, Score]]:
        """Accuracy per frame by source and factor, ``blurred`` among them if ``real`` is; and
        how many ``spoiled`` frames are called unreadable, which is the same for all factors."""
        self.accuracy = {}
        if "real" in sets:
            real = sets["real"]
            self.accuracy["spoiled"] = self._refused(real.video)
            sets = {**sets, "blurred": replace(real, video=_blur(real.video))}
        for source, clips in sets.items():
            right = (self.read(clips.video) == clips.classes[:, None]).float().mean(1)  # b f
            self.accuracy[source] = {
                factor.name: proportion(right[:, f], chance=1 / len(factor.classes))
                for f, factor in enumerate(self.factors.items)
            }
        return self.accuracy

    def save(self, folder: Path) -> None:
        """``weights.safetensors`` and ``probe.json``: complete or absent, never half."""
        if self.frame_size is None:
            raise UserError("this judge was not fitted; fit it before it is saved")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "probe.json").is_file():
            raise UserError(f"{folder} exists and is not a judge's; save it in a folder of its own")
        accuracy = {
            source: {name: score._asdict() for name, score in scores.items()}
            for source, scores in self.accuracy.items()
        }
        record = {
            "config": self.config.model_dump(mode="json"),
            "factors": self.factors.to_json(),
            "frame_size": self.frame_size,
            "accuracy": accuracy,
        }
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            # Bytes, since only Python's own writing raises OSError on a full disk.
            (partial / "weights.safetensors").write_bytes(save(self.networks.state_dict()))
            (partial / "probe.json").write_text(json.dumps(record, indent=2))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> "Judge":
        """The judge that `save` wrote."""
        path = folder / "probe.json"
        if not path.is_file():
            raise UserError(f"no fitted judge at {folder}; fit one and save it there")
        record: dict[str, Any] = json.loads(path.read_text())
        judge = cls(base.PROBES.config(record["config"]), Factors.from_json(record["factors"]))
        height, width = record["frame_size"]
        judge.frame_size = (height, width)
        judge.accuracy = {
            source: {name: Score(**score) for name, score in scores.items()}
            for source, scores in record["accuracy"].items()
        }
        judge.networks.load_state_dict(load_file(folder / "weights.safetensors"))
        judge.networks.eval()
        return judge

    def _readers(self) -> Iterator[tuple[Factor, Classifier]]:
        return zip(self.factors.items, self.classifiers, strict=True)

    def _read_chunk(self, video: Video) -> Int64[Tensor, "b t f"]:
        columns: list[Tensor] = []
        for factor, network in self._readers():
            windows = video.unfold(2, 2 if factor.temporal else 1, 1)  # b c windows h w frames
            images = rearrange(windows, "b c n h w frames -> (b n) (frames c) h w")
            verdicts = rearrange(network(images).argmax(1), "(b n) -> b n", n=windows.shape[2])
            first = verdicts[:, : video.shape[2] - windows.shape[2]]  # frame 0 has frame 1's
            columns.append(torch.cat([first, verdicts], dim=1))  # b t
        intact = self.intact(rearrange(video, "b c t h w -> (b t) c h w")).argmax(1) == 1
        readable = rearrange(intact, "(b t) -> b t 1", t=video.shape[2])
        return torch.stack(columns, dim=-1).where(readable, base.UNREADABLE)

    def _refused(self, video: Video) -> dict[str, Score]:
        rng = Rng.make(0, "check spoiled", torch.arange(len(video), device=video.device))
        frames = spoiled(video[:, :, 0], rng)[:, :, None]
        wanted = 2 if any(factor.temporal for factor in self.factors.items) else 1
        verdicts = self.read(frames.expand(-1, -1, wanted, -1, -1))
        refused = (verdicts == base.UNREADABLE).float().mean((1, 2))
        return {factor.name: proportion(refused, chance=0.5) for factor in self.factors.items}

    def _augment(self, pairs: Float[Tensor, "b c 2 h w"], rng: Rng) -> Float[Tensor, "b c 2 h w"]:
        blurred = rng.fold("blurred").bernoulli(_BLURRED_SHARE, 1)[:, 0]
        pairs = pairs.index_put((blurred,), _blur(pairs[blurred]))
        sigma = self.config.noise * rng.fold("sigma").uniform(1, 1, 1, 1)
        noise = (rng.fold("noise").uniform(*pairs.shape[1:]) - 0.5) * math.sqrt(12)  # variance 1
        return pairs + sigma * noise

    def _refuse_unfit(self, sets: Mapping[str, ClipSet]) -> None:
        if not sets:
            raise UserError("fitting a judge needs at least one set of clips, such as 'real'")
        sizes = {_frame_size(clips.video) for clips in sets.values()}
        if len(sizes) > 1:
            raise UserError(f"one judge is fitted for one frame size, got {sorted(sizes)}")
        for clips in sets.values():
            check_video(clips.video)
            check_frames(self.factors, clips.video.shape[2])

    def _refuse_missing_combinations(self, sets: Mapping[str, ClipSet]) -> None:
        for source, clips in sets.items():
            ids = self.factors.combination_ids(clips.classes)
            missing = sorted(set(range(self.factors.num_combinations)) - set(ids.tolist()))
            if missing:
                example = self.factors.describe(self.factors.combinations()[missing[0]])
                raise UserError(
                    f"the set {source!r} lacks {len(missing)} of {self.factors.num_combinations} "
                    f"combinations, such as '{example}'; a judge is fitted on all of them"
                )

    def _refuse_unreadable(self, video: Video) -> None:
        if self.frame_size is None:
            raise UserError("this judge was not fitted; call fit(...) or load(folder) first")
        if _frame_size(video) != self.frame_size:
            (fitted_h, fitted_w), (h, w) = self.frame_size, _frame_size(video)
            raise UserError(
                f"this judge was fitted for frames of {fitted_h} x {fitted_w} pixels, "
                f"got {h} x {w}; fit one for this size"
            )
        check_frames(self.factors, video.shape[2])


def _draw_pairs(
    clips: ClipSet, rng: Rng
) -> tuple[Float[Tensor, "n c 2 h w"], Int64[Tensor, "n f"]]:
    """Two neighbouring frames of a drawn clip for each stream of `rng`; where t = 1, one twice."""
    rows = rng.fold("clip").integers(len(clips.video), 1)[:, 0]
    last = clips.video.shape[2] - 1
    before = rng.fold("frame").integers(max(last, 1), 1)[:, 0]
    after = (before + 1).clamp_max(last)
    pairs = torch.stack([clips.video[rows, :, before], clips.video[rows, :, after]], dim=2)
    return pairs, clips.classes[rows]


def _blur(video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
    """The mean over 3 x 3 pixels; over fewer at the border."""
    return F.avg_pool3d(video, (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False)


def _frame_size(video: Video) -> tuple[int, int]:
    return video.shape[3], video.shape[4]
