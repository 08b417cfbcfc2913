"""VQ: the codebook follows a slow reference, dead codes restart, and processes do not matter."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from vidcomp.seeding import Rng
from vidcomp.tokenizers.vq import DECAY, Config, Vq, nearest_code

STEPS = 3
BATCH = 8


def small(codebook_size: int = 12) -> Vq:
    dials = {"codebook_size": codebook_size, "channels": 4}
    return Config.model_validate({**dials, "width": 8, "depth": 1, "strides": (1, 2, 2)}).build()


def features_of(step: int, *, batch: int = BATCH) -> Tensor:
    return Rng.make(0, "features", torch.arange(batch), step=step).normal(2, 3, 3, 4)


def rng_of(step: int, *, batch: int = BATCH) -> Rng:
    return Rng.make(0, "train", torch.arange(batch), step=step)


def test_the_nearest_code_is_nearest() -> None:
    features, codebook = features_of(0), small().codebook
    distance = torch.cdist(features.flatten(0, 3), codebook)
    assert torch.equal(nearest_code(features, codebook).flatten(), distance.argmin(-1))


def test_the_codebook_follows_a_slow_reference() -> None:
    """arXiv:1711.00937, equations 6 to 8, a feature at a time; no code is ever dead."""
    vq = small(codebook_size=3)
    vq.codebook.copy_(torch.eye(4)[:3])
    counts, sums = [0.0] * 3, torch.zeros(3, 4)
    for step in range(4):
        made = vq.bottleneck(features_of(step), rng_of(step))
        vq.after_step()
        counts = [DECAY * n for n in counts]
        sums = DECAY * sums
        codes = torch.as_tensor(made.codes).flatten().tolist()
        for code, feature in zip(codes, features_of(step).reshape(-1, 4), strict=True):
            counts[code] += 1 - DECAY
            sums[code] += (1 - DECAY) * feature
        expected = torch.stack([sums[k] / counts[k] for k in range(3)])
        torch.testing.assert_close(vq.codebook, expected)


def test_dead_codes_restart_at_features_of_the_batch() -> None:
    """All features lie far away on one side, so that one code would catch them all."""
    vq = small()
    features = features_of(0) + 20
    assert len(torch.as_tensor(vq.bottleneck(features, None).codes).unique()) < 6
    vq.bottleneck(features, rng_of(0))
    vq.after_step()
    to_feature = torch.cdist(vq.codebook, features.reshape(-1, 4)).amin(1)
    assert (to_feature < 1e-3).sum() >= 6
    assert len(torch.as_tensor(vq.bottleneck(features, None).codes).unique()) == 12


def test_living_codes_do_not_restart() -> None:
    vq = small()
    for step in range(STEPS):
        vq.bottleneck(features_of(0), rng_of(step))
        vq.after_step()
    before = vq.codebook.clone()
    vq.bottleneck(features_of(0), rng_of(STEPS))
    vq.after_step()
    assert (vq.codebook - before).norm(dim=-1).max() < 0.3


def test_restarts_wait_where_features_are_fewer_than_dead_codes() -> None:
    vq = small(codebook_size=40)
    one = torch.ones(1, 1, 2, 2, 4) * torch.arange(1.0, 5).reshape(1, 1, 2, 2, 1)
    vq.bottleneck(one, rng_of(0, batch=1))
    before = vq.codebook.clone()
    vq.after_step()
    assert 1 <= (vq.codebook != before).any(-1).sum() <= 8


def test_micro_batches_add_up() -> None:
    whole, parts = small(), small()
    for step in range(STEPS):
        features, rng = features_of(step), rng_of(step)
        whole.bottleneck(features, rng)
        for rows in (slice(0, 2), slice(2, 3), slice(3, BATCH)):
            parts.bottleneck(features[rows], rng[rows])
        whole.after_step()
        parts.after_step()
        torch.testing.assert_close(parts.codebook, whole.codebook)


def test_evaluation_leaves_the_codebook_alone() -> None:
    vq = small().eval()
    before = vq.codebook.clone()
    vq.bottleneck(features_of(0), rng_of(0))
    vq.after_step()
    assert torch.equal(vq.codebook, before)


def one_of_two_processes(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    rows = slice(0, 3) if rank == 0 else slice(3, BATCH)  # uneven on purpose
    torch.save(trained(rows), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def trained(rows: slice) -> Tensor:
    vq = small()
    for step in range(STEPS):
        vq.bottleneck(features_of(step)[rows], rng_of(step)[rows])
        vq.after_step()
    return vq.codebook


def test_two_processes_learn_the_codebook_of_one(tmp_path: Path) -> None:
    if not dist.is_gloo_available():
        pytest.skip("torch was built without gloo")
    mp.spawn(one_of_two_processes, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, trained(slice(None)))
