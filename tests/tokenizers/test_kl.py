"""KL: the divergence is torch's, and the noise has the spread that the encoder asks for."""

import torch
from torch.distributions import Normal, kl_divergence

from vidcomp.seeding import Rng
from vidcomp.tokenizers.kl import Config, Kl


def small(**dials: float) -> Kl:
    return Config(channels=3, width=8, depth=1, strides=(1, 2, 2), **dials).build()  # type: ignore


def test_the_divergence_is_that_of_torch() -> None:
    features = Rng.make(0, "features", torch.arange(4)).normal(2, 2, 2, 6)
    made = small(beta=0.5).bottleneck(features, Rng.make(0, "train", torch.arange(4)))
    mean, log_variance = features.chunk(2, dim=-1)
    posterior = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).mean((1, 2, 3, 4))
    torch.testing.assert_close(made.metrics["kl_nats"], expected)
    torch.testing.assert_close(made.terms["kl"], 0.5 * expected)


def test_training_samples_the_posterior() -> None:
    features = torch.tensor([0.7, -2.0, 0.0, 0.0, -4.0, -30.0]).expand(64, 4, 4, 4, 6)
    kl = small()
    values = kl.bottleneck(features, Rng.make(0, "train", torch.arange(64))).values.flatten(0, 3)
    torch.testing.assert_close(values.mean(0), features[0, 0, 0, 0, :3], rtol=0, atol=0.05)
    spread = torch.tensor([1.0, 0.1353, 0.0])
    torch.testing.assert_close(values.std(0), spread, rtol=0.03, atol=1e-3)
    torch.testing.assert_close(kl.bottleneck(features, None).values, features[..., :3])
