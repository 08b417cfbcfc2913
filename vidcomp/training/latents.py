"""Latents that are made once: kept in memory, or on disk for the runs to come.

On disk they lie in ``runs/cache/latents/<key>``. The key is a hash of all that decides them (the
tokenizer's weights and settings, the dataset's content, the clips and their order), so nothing else
finds them: another tokenizer never reads them. A shard is complete or absent, and its name carries
the hash of its bytes: one that is damaged is noticed, and made again. An interrupted run goes on
where it was; of several processes, each makes its share of the shards.

Kept are the codes of a discrete tokenizer, in the smallest integers that hold them, and the values
of a continuous one. Shards on disk are mapped into memory, not read: what is used stays in the
system's cache, which processes share, and what does not fit is dropped by the system.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from tqdm import tqdm

from vidcomp.config import UserError
from vidcomp.datasets.base import Dataset, Portion
from vidcomp.media import write_bytes
from vidcomp.runs import TrainConfig, load_run, weights_digest
from vidcomp.tokenizers.base import Tokenizer
from vidcomp.training.order import by_length
from vidcomp.types import Latents, LatentSpec
from vidcomp.world.locations import Locations

CACHE = Path("runs/cache/latents")

_PLACES = "locations."
"""What the names of their tensors in a shard begin with."""

_SHARD_CLIPS = 1024
_CLIPS_AT_A_TIME = 64
"""Always the same, because matrix products round differently at other batch sizes."""


@dataclass(frozen=True)
class Kept:
    """Latents as they are kept: codes of any integer type, or values."""

    tensor: Float[Tensor, "b T H W d"] | Integer[Tensor, "b T H W q"]

    @classmethod
    def of(cls, latents: Latents, spec: LatentSpec) -> "Kept":
        if latents.codes is None:
            return cls(latents.values)
        return cls(latents.codes.to(code_type(spec)))

    def to(self, device: "torch.device | str") -> "Kept":
        return Kept(self.tensor.to(device))

    def latents(self, tokenizer: Tokenizer) -> Latents:
        """The latents again; `tokenizer` must be on the same device."""
        if self.tensor.is_floating_point():
            return Latents(self.tensor)
        return tokenizer.lookup(self.tensor.long())


@dataclass(frozen=True)
class KeptClips:
    """Kept latents with what the clips show, and where, if the generator is told of places."""

    kept: Kept
    classes: Int64[Tensor, "b f"]
    values: Float[Tensor, "b f v"]
    locations: Locations | None = None

    @classmethod
    def cat(cls, parts: Sequence["KeptClips"]) -> "KeptClips":
        """One batch after the other, of clips of one length."""
        places = [part.locations for part in parts if part.locations is not None]
        return KeptClips(
            Kept(torch.cat([part.kept.tensor for part in parts])),
            torch.cat([part.classes for part in parts]),
            torch.cat([part.values for part in parts]),
            Locations.cat(places) if places else None,
        )


Plan = Sequence[Int64[Tensor, " _"]]
"""The clips of each shard, by number."""

Encode = Callable[[Int64[Tensor, " b"]], KeptClips]
"""Clips by number, encoded, on the CPU."""


def code_type(spec: LatentSpec) -> torch.dtype:
    """The smallest type that holds every code."""
    most = max(spec.codebook_sizes or (0,)) - 1
    types = (torch.uint8, torch.int16, torch.int32)
    return next((t for t in types if most <= torch.iinfo(t).max), torch.int64)


class LatentCache:
    """Every clip of a run, encoded. A shard holds clips of one length."""

    def __init__(self, plan: Plan, shards: Sequence[KeptClips]) -> None:
        self.shards = tuple(shard.kept.tensor for shard in shards)
        back = torch.cat(list(plan)).argsort()  # from the order of the plan to that of the numbers
        sizes = torch.tensor([len(clips) for clips in plan])
        self._shard_of = torch.arange(len(plan)).repeat_interleave(sizes)[back]
        self._row_of = torch.cat([torch.arange(len(clips)) for clips in plan])[back]
        self._classes = torch.cat([shard.classes for shard in shards])[back]
        self._values = torch.cat([shard.values for shard in shards])[back]
        self._places = [s.locations for s in shards if s.locations is not None]

    @property
    def num_bytes(self) -> int:
        return sum(shard.nbytes for shard in self.shards)

    def __getitem__(self, clips: Int64[Tensor, " b"]) -> KeptClips:
        """The clips with these numbers, which are of one length."""
        found = list(zip(self._shard_of[clips].tolist(), self._row_of[clips].tolist(), strict=True))
        kept = torch.stack([self.shards[k][row] for k, row in found])
        places = None
        if self._places:
            places = Locations.cat([self._places[k][row : row + 1] for k, row in found])
        return KeptClips(Kept(kept), self._classes[clips], self._values[clips], places)


def shard_plan(portions: Sequence[Portion]) -> Plan:
    """Clips of one length together, in the order of the dataset."""
    plan: list[Tensor] = []
    for bucket in by_length(portions):
        clips = torch.cat([portions[k].rows for k in bucket]).sort().values
        plan += clips.split(_SHARD_CLIPS)
    return plan


def in_memory(plan: Plan, encode: Encode) -> LatentCache:
    """Every clip encoded, by each process for itself."""
    return LatentCache(plan, list(_encoded(plan, encode)))


def on_disk(folder: Path, plan: Plan, encode: Encode, accelerator: Accelerator) -> LatentCache:
    """The cache in `folder`, of which what is missing is made first, by all processes together."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = range(accelerator.process_index, len(plan), accelerator.num_processes)
    missing = [k for k in mine if _whole_shard(folder, k) is None]
    for k, shard in zip(missing, _encoded([plan[k] for k in missing], encode), strict=True):
        _write_shard(folder, k, shard)
    accelerator.wait_for_everyone()
    shards = [_mapped(_shard_files(folder, k)[0]) for k in range(len(plan))]
    cache = LatentCache(plan, shards)
    how = "found" if not missing else f"{len(missing)} of {len(mine)} shards encoded"
    accelerator.print(f"{folder}: {cache.num_bytes / 1e6:.1f} MB of latents, {how}")
    return cache


def cache_key(tokenizer_folder: Path, dataset: Dataset, plan: Plan, *, with_locations: bool) -> str:
    """Sixteen hex digits of all that decides the shards; `plan` in the numbers of `dataset`."""
    run, _ = load_run(tokenizer_folder / "config.yaml")
    tokenizer = run.tokenizer if isinstance(run.tokenizer, str) else run.tokenizer.digest
    made_by = [weights_digest(tokenizer_folder), tokenizer, _CLIPS_AT_A_TIME]
    made_of = [dataset.fingerprint, [len(clips) for clips in plan]]
    with_what = [_PLACES] if with_locations else []
    seen = hashlib.sha256(json.dumps([made_by, made_of, *with_what]).encode())
    for clips in plan:
        seen.update(clips.numpy().tobytes())
    return seen.hexdigest()[:16]


def refuse_misfit(
    config: TrainConfig, dataset: Dataset, spec: LatentSpec, portions: Sequence[Portion]
) -> None:
    """Raise UserError if `config` asks for a cache that cannot be kept."""
    if config.cache == "none":
        return
    if dataset.is_random:
        raise UserError(
            f"train.cache={config.cache} would keep one crop of each clip, but this dataset draws "
            "random crops; set train.cache=none, or turn random crops off"
        )
    kept_bytes = code_type(spec).itemsize * len(spec.codebook_sizes or ()) or 4 * spec.channels
    size = 0
    for portion in portions:
        grid = spec.grid(portion.num_frames, dataset.height, dataset.width)
        size += len(portion.rows) * grid.size * kept_bytes
    if config.cache == "memory" and size > config.cache_gb * 1e9:
        raise UserError(
            f"the latents take {size / 1e9:.2g} GB, and train.cache_gb={config.cache_gb:g}; set "
            "train.cache=latents, which keeps them on disk, or train.cache=none, or raise cache_gb"
        )


def _encoded(plan: Plan, encode: Encode) -> Iterator[KeptClips]:
    """Shard after shard."""
    total = sum(len(clips) for clips in plan)
    with tqdm(total=total, desc="encode", unit="clip", leave=False, disable=None) as progress:
        for clips in plan:
            parts: list[KeptClips] = []
            for chunk in clips.split(_CLIPS_AT_A_TIME):
                parts.append(encode(chunk))
                progress.update(len(chunk))
            yield KeptClips.cat(parts)


def _shard_files(folder: Path, k: int) -> list[Path]:
    return sorted(folder.glob(f"{k:05d}-*.safetensors"))


def _whole_shard(folder: Path, k: int) -> Path | None:
    """The file of shard `k`, if there is one whose bytes are those that its name says."""
    for path in _shard_files(folder, k):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stem.partition("-")[2] == found[:16]:
            return path
        print(f"{path} is damaged; its clips are encoded again")
        path.unlink(missing_ok=True)
    return None


def _write_shard(folder: Path, k: int, shard: KeptClips) -> None:
    tensors = {"latents": shard.kept.tensor, "classes": shard.classes, "values": shard.values}
    if shard.locations is not None:
        tensors |= {_PLACES + name: x for name, x in shard.locations.tensors().items()}
    content = safetensors.torch.save({name: x.contiguous() for name, x in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()[:16]
    write_bytes(folder / f"{k:05d}-{digest}.safetensors", content)


def _mapped(path: Path) -> KeptClips:
    """A shard whose tensors are the file's pages, read when they are first looked at."""
    tensors = safetensors.torch.load_file(path)
    places = {
        name.removeprefix(_PLACES): x for name, x in tensors.items() if name.startswith(_PLACES)
    }
    return KeptClips(
        Kept(tensors["latents"]),
        tensors["classes"],
        tensors["values"],
        Locations(**places) if places else None,
    )
