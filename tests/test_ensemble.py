"""The recipe ``ensemble``: its features, networks, losses and updates."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_cell import straight_down, toy_encoder

from lotj.algos.ensemble import (
    EnsembleConfig,
    EnsemblePractice,
    clamped_target,
    ensemble_td_loss,
    imitation_loss,
    normalised_value_loss,
)
from lotj.algos.ensemble_nets import EnsembleCritic, ResidualActor
from lotj.algos.learner import DeviceBatch, batch_to
from lotj.algos.projection import principal_components
from lotj.data.features import FeatureBuffer

CONFIG = EnsembleConfig(components=12, actor_hidden=(32, 32), critic_hidden=(16, 16), batch_size=16, prepare_updates=3)


def _images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


def _learner(config: EnsembleConfig = CONFIG, seed: int = 0) -> EnsemblePractice:
    learner = EnsemblePractice(
        config, [toy_encoder, lambda image: toy_encoder(image) ** 2], straight_down, action_dim=3, seed=seed
    )
    learner.fit([_images(64)])
    return learner


def _batch(learner: EnsemblePractice, seed: int = 1, count: int = 16) -> DeviceBatch:
    generator = torch.Generator().manual_seed(seed)
    return DeviceBatch(
        feature=learner.encode(_images(count, seed)),
        next_feature=learner.encode(_images(count, seed + 1)),
        action=torch.rand(count, 3, generator=generator) * 2 - 1,
        reward=(torch.rand(count, generator=generator) < 0.3).float(),
        terminated=torch.rand(count, generator=generator) < 0.3,
        domain=torch.full((count,), -1),
        online=torch.arange(count) % 2 == 0,
    )


def test_cached_features_give_the_gradients_of_pixels() -> None:
    """An update from the buffer of cached features, kept in half precision, has the gradients of one from images that
    are encoded anew, to that precision."""
    learner = _learner()
    images, action = _images(17, seed=5), torch.linspace(-1, 1, 48).view(16, 3)
    reward = (torch.arange(16) % 3 == 0).float()
    buffer = FeatureBuffer(17, learner.feature_dim, 3, dtype=torch.float16)
    buffer.add(learner.encode(images), action, reward, terminated=True)
    rows = torch.randint(16, (16,), generator=torch.Generator().manual_seed(3))
    cached = batch_to(buffer.sample(16, torch.Generator().manual_seed(3)), learner.device)
    pixels = cached._replace(feature=learner.encode(images[rows]), next_feature=learner.encode(images[rows + 1]))
    torch.testing.assert_close(cached.action, action[rows])
    gradients = []
    for batch in (cached, pixels):
        learner._generator.manual_seed(0)
        critic, actor = learner._critic_loss(batch)[0], learner._actor_loss(batch)[0]
        gradients.append(
            torch.cat(
                [
                    gradient.flatten()
                    for loss, module in ((critic, learner.critic), (actor, learner.actor))
                    for gradient in torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
                    if gradient is not None
                ]
            )
        )
    assert float(gradients[1].norm()) > 0
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 5e-3


class Offline:
    """Draws one and the same batch."""

    def __init__(self, batch: DeviceBatch) -> None:
        self.batch = batch

    def sample(self, batch: int, generator: torch.Generator) -> DeviceBatch:
        return self.batch


def test_principal_components_are_numpys() -> None:
    """One streaming pass in uneven batches gives the SVD of the centred data: mean, directions, deviations, share."""
    data = np.random.default_rng(0).normal(size=(200, 20)) @ np.diag(np.linspace(1, 3, 20)) + 50.0
    projection = principal_components((torch.from_numpy(part).float() for part in np.split(data, [7, 90])), 6)
    centred = data - data.mean(axis=0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(projection.mean, data.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.abs(projection.components.numpy().T @ rows[:6].T), np.eye(6), atol=1e-3)
    np.testing.assert_allclose(projection.scale, singular[:6] / np.sqrt(200), rtol=1e-4)
    assert float(projection.explained) == pytest.approx((singular[:6] ** 2).sum() / (singular**2).sum(), rel=1e-4)
    white = projection.apply(torch.from_numpy(data).float())
    np.testing.assert_allclose(np.cov(white.numpy().T, bias=True), np.eye(6), atol=1e-3)


def test_directions_without_variance_stay_finite() -> None:
    """Constant features project to zero, not to noise divided by zero."""
    projection = principal_components([torch.ones(10, 4)], 4)
    assert torch.isfinite(projection.apply(torch.ones(3, 4))).all()
    with pytest.raises(ValueError, match="at least 2"):
        principal_components([], 4)


def test_encoding_is_components_and_base_action() -> None:
    """An encoded frame is [clipped unit-variance components | atanh of the clipped base action], and deterministic."""
    learner = _learner(replace(CONFIG, feature_clip=1.5))
    code = learner.encode(_images(64))
    assert code.shape == (64, 15) and learner.feature_dim == 15
    assert float(code[:, :12].abs().max()) == 1.5
    torch.testing.assert_close(torch.tanh(code[:, 12:]), straight_down(code))
    assert torch.equal(code, learner.encode(_images(64)))


def test_practice_begins_at_the_base_policy() -> None:
    """The last layer starts at zero, so the first actions are the base policy's own, whatever the features."""
    learner = _learner()
    torch.testing.assert_close(learner.actor(learner.encode(_images(20, 5))), straight_down(torch.zeros(20, 1)))
    observation = {"image": _images(1, 5)[0].permute(1, 2, 0).numpy()}
    action = learner.act(observation, np.random.default_rng(0))
    np.testing.assert_allclose(action, [0.0, 0.0, -0.6], atol=1e-6)


@pytest.mark.parametrize("consent", ["none", "mean", "all"])
def test_the_robot_leaves_the_offline_policy_only_where_critics_consent(consent: str) -> None:
    """Two critics that differ in what they think of going along x: the practised action is done where the mean, or
    both, or nobody needs to, prefer it; else the offline policy's, exactly."""
    learner = _learner(replace(CONFIG, consent=consent, heads=2, target_heads=1))
    for parameter in learner.actor.parameters():
        parameter.data.add_(0.2)
    feature = learner.encode(_images(2))
    practised, base = learner.actor(feature), torch.tanh(feature[:, -3:])
    assert (practised - base).abs().min() > 1e-3

    def critic(gains: list[list[float]]):
        """Gains (heads, B) of the practised action over the offline one."""
        return lambda features, action: torch.tensor(gains) * (action == practised[: len(features)]).all(1)

    for first, second in itertools.product((-0.2, 0.1, 0.3), repeat=2):
        learner.critic = critic([[first], [second]])  # type: ignore[assignment]
        done = learner.act_on(feature[:1], np.random.default_rng(0))
        allowed = {"none": True, "mean": first + second > 0, "all": min(first, second) > 0}[consent]
        np.testing.assert_array_equal(done, (practised if allowed else base)[0].detach().numpy())
        learner.critic = critic([[first, 0.1], [second, 0.1]])  # type: ignore[assignment]
        both = learner._agreed(feature)
        assert torch.equal(both[0], (practised if allowed else base)[0]) and torch.equal(both[1], practised[1])


@pytest.mark.parametrize("layer_norm", [True, False])
def test_ensemble_is_a_loop_of_single_critics(layer_norm: bool) -> None:
    """Batched matrices give what each head gives alone, written out; listed heads are rows of the whole."""
    critic = EnsembleCritic(12, 3, (16, 16), 5, 4, torch.Generator().manual_seed(3), layer_norm)
    feature, action = torch.randn(7, 15), torch.randn(7, 3)
    whole = critic(feature, action)
    for head in range(5):
        x = torch.cat([feature[:, :12], action, action, action, action], dim=1)
        for layer in range(2):
            x = x @ critic.weight[layer][head] + critic.bias[layer][head]
            if layer_norm:
                x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
            x = torch.relu(x)
        single = (x @ critic.weight[2][head] + critic.bias[2][head]).squeeze(1)
        torch.testing.assert_close(whole[head], single)
    assert len({round(q, 6) for q in whole[:, 0].tolist()}) == 5  # heads start apart
    torch.testing.assert_close(critic(feature, action, torch.tensor([4, 1])), whole[[4, 1]])


def test_targets_bootstrap_at_timeouts_and_stop_at_success() -> None:
    """r + γ V(s') where not terminated, r where terminated; both clamped to [0, 1]."""
    reward, terminated = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0]), torch.tensor([False, True, True, False, False])
    value = torch.tensor([0.5, 0.7, 0.7, -2.0, 3.0])
    torch.testing.assert_close(clamped_target(reward, terminated, value, 0.9), torch.tensor([0.45, 1.0, 0.0, 0.0, 1.0]))


def test_losses_in_closed_form() -> None:
    """TD: mean over the batch, summed over heads. Imitation: masked rows only, 0 for none. Q: −1 for positive Q."""
    value, target = torch.tensor([[1.0, 0.0], [0.0, 0.5]]), torch.tensor([0.0, 0.5])
    assert float(ensemble_td_loss(value, target)) == pytest.approx((1 + 0.25) / 2 + 0.0)
    action, reference = torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [2.0, 2.0], [3.0, 3.0]])
    assert float(imitation_loss(action, reference, torch.tensor([True, True, False]))) == pytest.approx((0.5 + 4) / 2)
    assert float(imitation_loss(action, reference, torch.zeros(3, dtype=torch.bool))) == 0.0
    assert float(normalised_value_loss(torch.full((5, 4), 0.3))) == pytest.approx(-1.0)
    assert float(normalised_value_loss(torch.full((5, 4), 30.0))) == pytest.approx(-1.0)


def test_actor_gradient_is_the_finite_difference_of_q_and_raises_it() -> None:
    """d(loss)/d(actor) equals a central difference of −mean Q / |Q|₀; a small step along it increases mean Q."""
    generator = torch.Generator().manual_seed(0)
    actor = ResidualActor(12, 3, (16,), generator).double()
    critic = EnsembleCritic(12, 3, (16, 16), 5, 4, generator).double()
    feature = torch.randn(32, 15, generator=generator, dtype=torch.float64)
    bias = actor.residual[-1].bias
    q = critic(feature, actor(feature))
    (gradient,) = torch.autograd.grad(normalised_value_loss(q), [bias])
    scale, step = q.detach().abs().mean(), 1e-5
    for index in range(3):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[index] += sign * step
                ends.append(-critic(feature, actor(feature)).mean() / scale)
                bias[index] -= sign * step
        assert float((ends[0] - ends[1]) / (2 * step)) == pytest.approx(float(gradient[index]), rel=1e-4)
    with torch.no_grad():
        bias -= 1e-3 * gradient
    assert critic(feature, actor(feature)).mean().item() > q.mean().item()


def test_an_update_moves_everything_that_learns_and_nothing_else() -> None:
    """One update changes every parameter of actor and critics that has a gradient, moves targets by 1%, keeps PCA."""
    learner = _learner()
    learner.update(_batch(learner))  # the residual's inner layers get gradients once its last layer is not zero
    before = learner.state_dict()
    learner.update(_batch(learner))
    after = learner.state_dict()
    for part in ("actor", "critic"):
        for name, value in before[part].items():
            assert not torch.equal(value, after[part][name]), f"{part}.{name}"
    for name, value in before["target"].items():
        torch.testing.assert_close(after["target"][name], 0.99 * value + 0.01 * after["critic"][name])
    assert all(torch.equal(before["projection"][name], value) for name, value in after["projection"].items())


def test_preparing_trains_critics_only() -> None:
    """Offline warm-up leaves the actor, and so the base policy, exactly as it was."""
    learner = _learner()
    before = learner.state_dict()
    learner.prepare(Offline(_batch(learner)))
    after = learner.state_dict()
    assert all(torch.equal(before["actor"][name], value) for name, value in after["actor"].items())
    assert not torch.equal(before["critic"]["weight.0"], after["critic"]["weight.0"])


def test_critics_learn_the_return() -> None:
    """On transitions that all end, paid 0 or 1 by one feature, values converge to the reward."""
    learner = _learner(replace(CONFIG, learning_rate=3e-3, prepare_updates=200))
    batch = _batch(learner, count=64)
    batch = batch._replace(terminated=torch.ones(64, dtype=torch.bool), reward=(batch.feature[:, 0] > 0).float())
    learner.prepare(Offline(batch))
    error = (learner.critic(batch.feature, batch.action) - batch.reward).abs().mean()
    assert error.item() < 0.1


@pytest.mark.parametrize("field", ["bc_weight", "success_weight", "discount", "learning_rate"])
def test_each_setting_changes_the_update(field: str) -> None:
    """Changing any weight changes what two updates leave behind."""
    results = []
    for factor in (1.0, 0.5):
        learner = _learner(replace(CONFIG, **{field: getattr(CONFIG, field) * factor}))
        batch = _batch(learner)
        learner.remember_success(batch.feature, batch.action)
        for _ in range(2):
            learner.update(batch)
        results.append(learner.state_dict())
    assert any(not torch.equal(results[0][part][name], value) for part in ("actor", "critic")
               for name, value in results[1][part].items())  # fmt: skip


def test_on_offline_frames_the_offline_policy_is_kept_to() -> None:
    """Whatever was done there: an untrained residual is at no distance from it, and a trained one returns to it, while
    on the robot's own frames nothing holds it."""
    learner = _learner(replace(CONFIG, bc_weight=100.0, learning_rate=3e-3))
    batch = _batch(learner)
    assert (batch.action - straight_down(torch.zeros(16, 12))).abs().max() > 0.5
    assert learner.update(batch)["behaviour_cloning"] == pytest.approx(0.0, abs=1e-9)
    for parameter in learner.actor.parameters():
        parameter.data.add_(0.2)
    base = torch.tanh(batch.feature[:, -3:])
    before = (learner.actor(batch.feature) - base).abs().mean(1)
    for _ in range(60):
        learner.update(batch)
    after = (learner.actor(batch.feature) - base).abs().mean(1)
    assert after[~batch.online].max() < 0.3 * before[~batch.online].max()
    alone = batch._replace(online=torch.ones(16, dtype=torch.bool))
    assert learner.update(alone)["behaviour_cloning"] == 0.0


def test_own_successes_are_imitated() -> None:
    """With a heavy weight, the policy's action at a remembered frame approaches what was done there."""
    learner = _learner(replace(CONFIG, success_weight=100.0, learning_rate=3e-3))
    feature, action = learner.encode(_images(4, 9)), torch.tensor([[0.5, -0.5, 0.2]] * 4)
    learner.remember_success(feature, action)
    before = (learner.actor(feature) - action).abs().mean().item()
    for seed in range(60):
        learner.update(_batch(learner, seed))
    assert (learner.actor(feature) - action).abs().mean().item() < 0.2 * before


def test_exploration_is_seeded_scaled_per_trial_and_off_by_default() -> None:
    """Noise keeps one scale within a trial and draws another for the next; the same rng gives the same actions."""
    learner = _learner(replace(CONFIG, base_clip=0.9))
    feature = learner.encode(_images(1))
    plain = learner.act_on(feature, np.random.default_rng(0))
    spreads = []
    for seed in range(6):
        learner.reset()
        rng = np.random.default_rng(seed)
        actions = np.stack([learner.act_on(feature, rng, explore=True) for _ in range(200)])
        spreads.append(float((actions - plain)[:, :2].std()))
        assert np.abs(actions).max() <= 1.0 and actions.dtype == np.float32
        learner.reset()
        again = learner.act_on(feature, np.random.default_rng(seed), explore=True)
        assert np.array_equal(again, actions[0])
    factor = [np.random.default_rng(seed).uniform(0, 1.5) for seed in range(6)]
    np.testing.assert_allclose(spreads, 0.3 * np.array(factor), rtol=0.15)


def test_state_restores_exactly() -> None:
    """A learner rebuilt from state alone, never fitted, continues bit for bit."""
    learner = _learner()
    batch = _batch(learner)
    learner.update(batch)
    other = EnsemblePractice(
        CONFIG, [toy_encoder, lambda image: toy_encoder(image) ** 2], straight_down, action_dim=3, seed=77
    )
    other.load_state_dict(learner.state_dict())
    assert torch.equal(other.encode(_images(5)), learner.encode(_images(5)))
    assert learner.update(batch) == other.update(batch)
    first, second = learner.state_dict(), other.state_dict()
    for part in ("actor", "critic", "target"):
        assert all(torch.equal(first[part][name], value) for name, value in second[part].items())
    assert torch.equal(first["generator"], second["generator"])


@pytest.mark.parametrize(
    "bad", [{"heads": 0}, {"target_heads": 9}, {"consent": "some"}, {"base_clip": 1.0}, {"target_rate": 0.0}]
)
def test_config_is_validated(bad: dict[str, float]) -> None:
    """Impossible settings name their field."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(CONFIG, **bad)
