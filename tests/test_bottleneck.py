"""The domain adversarial information bottleneck."""

import math
from dataclasses import replace

import pytest
import torch

from lotj.algos.training import adam, seeded
from lotj.nets.bottleneck import (
    METHODS,
    Bottleneck,
    BottleneckConfig,
    bottleneck_kl,
    domain_loss,
    gradient_reversal,
)

SMALL = BottleneckConfig(invariant_dim=4, specific_dim=4, adversarial_weight=0.5, adversarial_warmup=0, domain_hidden=8)
DOMAINS = 3


def build(config: BottleneckConfig = SMALL, seed: int = 0) -> Bottleneck:
    with seeded(seed):
        return Bottleneck(config, 10, DOMAINS)


def informed(config: BottleneckConfig = SMALL) -> Bottleneck:
    """A bottleneck whose domain head already beats chance, so that the cap does not switch the adversary off."""
    network = build(config)
    assert network.domain_head is not None
    optimizer = torch.optim.SGD(network.domain_head.parameters(), lr=0.3)
    for _ in range(30):
        loss, _ = network.loss(network(features()), DOMAIN)
        network.zero_grad()
        loss.backward()
        optimizer.step()
    network.zero_grad()
    return network


def features(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 10, generator=torch.Generator().manual_seed(1))


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(2)


DOMAIN = torch.tensor([0, 1, 2, 0, 1, 2])


def test_kl_agrees_with_torch_distributions() -> None:
    """bottleneck_kl is the batch mean of KL(N(mean, std) || N(0, I)) summed over components; zero at the prior."""
    mean, log_std = torch.randn(2, 7, 4, generator=noise()).unbind(0)
    posterior = torch.distributions.Normal(mean, log_std.exp())
    prior = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(-1).mean()
    torch.testing.assert_close(bottleneck_kl(mean, log_std), expected)
    assert bottleneck_kl(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


def test_gradient_reversal_by_finite_difference() -> None:
    """Forward is the identity; the gradient is -weight times the one that finite differences measure."""
    x = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)

    def loss(value: torch.Tensor) -> torch.Tensor:
        return (value**3).sum()

    loss(gradient_reversal(x, 0.25)).backward()
    step = 1e-6
    for index in range(2):
        moved = torch.zeros(2, dtype=torch.float64)
        moved[index] = step
        with torch.no_grad():
            slope = (loss(gradient_reversal(x + moved, 0.25)) - loss(gradient_reversal(x - moved, 0.25))) / (2 * step)
        assert x.grad is not None and x.grad[index].item() == pytest.approx(-0.25 * slope.item(), rel=1e-6)


def test_following_the_reversed_gradient_hides_the_domain() -> None:
    """A step down L_DAIB on the encoder alone raises the domain loss; one on the head alone lowers it."""
    for part, sign in (("invariant", 1), ("domain_head", -1)):
        network = informed(replace(SMALL, kl_weight=0.0))
        loss, before = network.loss(network(features()), DOMAIN)
        loss.backward()
        assert before["domain_loss"] < math.log(DOMAINS) and before["reversal_weight"] == 0.5
        with torch.no_grad():
            for parameter in getattr(network, part).parameters():
                parameter -= 0.05 * parameter.grad
        after = network.loss(network(features()), DOMAIN)[1]
        assert sign * (after["domain_loss"] - before["domain_loss"]) > 1e-4


def test_adversary_is_off_above_chance() -> None:
    """While the domain cross-entropy exceeds log D the encoder gets no reversed gradient, and the head still learns."""
    network = build(replace(SMALL, kl_weight=0.0))
    with torch.no_grad():
        network.domain_head[-1].bias.copy_(torch.tensor([20.0, 0.0, 0.0]))  # type: ignore[index]
    loss, metrics = network.loss(network(features()), DOMAIN)
    loss.backward()
    assert metrics["domain_loss"] > metrics["domain_chance"] == pytest.approx(math.log(DOMAINS))
    assert metrics["reversal_weight"] == 0
    assert network.invariant[0].weight.grad.abs().sum() == 0  # type: ignore[index]
    assert network.domain_head[-1].weight.grad.abs().sum() > 0  # type: ignore[index]


def test_adversary_does_not_diverge() -> None:
    """An encoder that outruns a domain head which knew the domains stays near chance, at the weight the paper prints;
    were the adversary not switched off above chance, it would go on to 1.4 nats beyond it."""
    network = informed(replace(SMALL, adversarial_weight=1.0, domain_learning_rate=1e-4))
    optimizer = adam(network, 3e-3)
    worst, reversed_steps = 0.0, 0
    for step in range(200):
        loss, metrics = network.loss(network(features(), noise()), DOMAIN, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        worst = max(worst, metrics["domain_loss"])
        reversed_steps += metrics["reversal_weight"] > 0
    assert math.log(DOMAINS) < worst < math.log(DOMAINS) + 0.8
    assert 0 < reversed_steps < 200


def test_unknown_domains_drop_out() -> None:
    """Domain -1 contributes nothing; a batch of only -1 gives exactly 0, with a graph whose gradients are 0."""
    logits = torch.randn(4, 3, generator=noise(), requires_grad=True)
    domain = torch.tensor([2, -1, 0, -1])
    kept = torch.nn.functional.cross_entropy(logits[[0, 2]], domain[[0, 2]])
    torch.testing.assert_close(domain_loss(logits, domain), kept)
    nothing = domain_loss(logits, torch.full((4,), -1))
    assert nothing.item() == 0 and nothing.requires_grad
    nothing.backward()
    assert logits.grad is not None and bool((logits.grad == 0).all())


def test_online_batch_has_finite_loss() -> None:
    """A batch from a held-out connector alone trains with the divergence only and reports no domain accuracy."""
    network = build()
    loss, metrics = network.loss(network(features(), noise()), torch.full((6,), -1))
    loss.backward()
    assert loss.item() == pytest.approx(SMALL.kl_weight * metrics["kl"])
    assert "domain_accuracy" not in metrics and "domain_loss" not in metrics


def test_encoding_is_deterministic_without_a_generator() -> None:
    """Without a generator z is the mean; with one it is mean + std * noise, and follows the generator."""
    network = build()
    first, second = network(features()), network(features())
    assert torch.equal(first.z, second.z) and torch.equal(first.z_specific, first.mean)
    drawn = network(features(), noise())
    assert torch.equal(drawn.z, network(features(), noise()).z) and not torch.equal(drawn.z, first.z)
    assert torch.equal(drawn.z_invariant, first.z_invariant)
    expected = drawn.mean + drawn.log_std.exp() * torch.randn(6, 4, generator=noise())
    torch.testing.assert_close(drawn.z_specific, expected)


@pytest.mark.parametrize("method", METHODS)
def test_methods_have_the_same_capacity_and_train_fully(method: str) -> None:
    """Every method of Table IV has the same Z, and every parameter that it has gets a non-zero gradient."""
    config = BottleneckConfig.of(method, dim=8, adversarial_warmup=0)
    network = build(config)
    output = network(features(), noise())
    assert output.z.shape == (6, 8)
    assert output.z_invariant.shape[1] + output.z_specific.shape[1] == 8
    loss, metrics = network.loss(output, DOMAIN)
    (loss + output.z.pow(3).sum()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())
    assert ("domain_loss" in metrics) == (config.adversarial_weight > 0)
    assert ("kl" in metrics) == (config.specific_dim > 0)


def test_methods_are_those_of_table_iv() -> None:
    """Who has an adversary and who pays for information is what distinguishes the methods."""
    weights = {name: BottleneckConfig.of(name) for name in METHODS}
    adversarial = {name for name, config in weights.items() if config.adversarial_weight > 0}
    informed = {name for name, config in weights.items() if config.kl_weight > 0}
    assert adversarial == {"dann", "daib-lambda-0", "daib"}
    assert informed == {"vib", "daib"} and weights["daib"].kl_weight == 0.01
    assert weights["daib"] == BottleneckConfig()


def test_unknown_method_is_answered_with_a_suggestion() -> None:
    """Errors name the offender, the choices and the nearest of them."""
    with pytest.raises(ValueError, match="did you mean 'daib'"):
        BottleneckConfig.of("diab")


@pytest.mark.parametrize(
    "change",
    [
        {"invariant_dim": -1},
        {"invariant_dim": 0},
        {"specific_dim": 0},
        {"adversarial_weight": -0.1},
        {"domain_learning_rate": 0.0},
    ],
)
def test_contradictory_configs_are_refused(change: dict) -> None:
    """A weight on a part that does not exist is an error that names the field."""
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(SMALL, **change)


def test_adversary_needs_two_domains() -> None:
    """There is nothing to hide among one connector."""
    with pytest.raises(ValueError, match="at least 2 domains, got 1"):
        Bottleneck(SMALL, 10, 1)


@pytest.mark.parametrize("step, share", [(0, 0.0), (50, 2 / (1 + math.exp(-5)) - 1), (100, 0.99991), (None, 1.0)])
def test_reversal_is_warmed_up(step: int | None, share: float) -> None:
    """The reversal weight rises as 2 / (1 + exp(-10 step / N)) - 1."""
    network = informed(replace(SMALL, adversarial_warmup=100))
    metrics = network.loss(network(features()), DOMAIN, step)[1]
    assert metrics["reversal_weight"] == pytest.approx(0.5 * share, abs=1e-5)


@pytest.mark.parametrize("change", [{"kl_weight": 0.5}, {"adversarial_weight": 0.05}, {"domain_learning_rate": 0.1}])
def test_each_weight_changes_training(change: dict) -> None:
    """Training ends elsewhere when a weight or rate changes: no field is decoration."""

    def trained(config: BottleneckConfig) -> torch.Tensor:
        network = informed(config)
        optimizer = adam(network, 1e-2)
        for step in range(3):
            output = network(features(), noise())
            optimizer.zero_grad()
            (network.loss(output, DOMAIN, step)[0] + output.z.sum()).backward()
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert not torch.equal(trained(SMALL), trained(replace(SMALL, **change)))
