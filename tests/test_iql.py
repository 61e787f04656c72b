"""Implicit Q-learning: the equations, the offline learners, and practice over frozen features."""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from lotj.algos import iql_practice
from lotj.algos.iql import (
    CriticConfig,
    CriticFeatures,
    CriticLearner,
    CriticLoss,
    CriticNetwork,
    advantage_weight,
    critic_loss,
    expectile_loss,
    policy_loss,
)
from lotj.algos.iql_practice import IqlPractice, IqlPracticeConfig
from lotj.algos.learner import Learner, td_target
from lotj.algos.policy import (
    ImagePolicy,
    PolicyBatch,
    PolicyConfig,
    PolicyLearner,
    PolicyNetwork,
    policy_objective,
)
from lotj.checkpoint import load_state, save_state
from lotj.nets.bottleneck import BottleneckConfig
from lotj.nets.encoder import EncoderConfig

ENCODER = EncoderConfig(width=4, image_size=32)
CRITIC = CriticConfig(encoder=ENCODER, hidden=(16,), action_repeat=2, learning_rate=1e-3)
POLICY = PolicyConfig(
    encoder=ENCODER,
    bottleneck=BottleneckConfig(invariant_dim=4, specific_dim=4, adversarial_warmup=0),
    hidden=(16,),
    learning_rate=1e-3,
)
A = 2
"""Action components."""
D = 3
"""Domains."""


class Transition(NamedTuple):
    image: Tensor
    next_image: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    domain: Tensor


class FeatureBatch(NamedTuple):
    feature: Tensor
    next_feature: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    domain: Tensor
    online: Tensor


def transition(count: int = 8, seed: int = 0) -> Transition:
    generator = torch.Generator().manual_seed(seed)
    image, next_image = torch.randint(0, 256, (2, count, 3, 32, 32), dtype=torch.uint8, generator=generator).unbind(0)
    action = 2 * torch.rand(count, A, generator=generator) - 1
    success = torch.arange(count) % 4 == 0
    return Transition(image, next_image, action, success.float(), success, torch.arange(count) % (D + 1) - 1)


def policy_batch(weight: Tensor | None = None, seed: int = 0) -> PolicyBatch:
    batch = transition(seed=seed)
    return PolicyBatch(batch.image, batch.action, batch.domain, weight)


def critic_learner(config: CriticConfig = CRITIC, steps: int = 0) -> CriticLearner:
    learner = CriticLearner(config, A, seed=0, device="cpu")
    for step in range(steps):
        learner.update(transition(seed=step))
    return learner


def policy_learner(config: PolicyConfig = POLICY, steps: int = 0, weight: Tensor | None = None) -> PolicyLearner:
    learner = PolicyLearner(config, A, D, seed=0, device="cpu")
    for step in range(steps):
        learner.update(policy_batch(weight, seed=step))
    return learner


def practice(config: IqlPracticeConfig = IqlPracticeConfig(), seed: int = 0) -> IqlPractice:
    policy, critic = policy_learner(steps=2).network, critic_learner(steps=2).network
    return IqlPractice(config, policy, critic, seed=seed, device="cpu")


def encoded(learner: IqlPractice, batch: Transition) -> FeatureBatch:
    online = torch.zeros(len(batch.action), dtype=torch.bool)
    return FeatureBatch(learner.encode(batch.image), learner.encode(batch.next_image), *batch[2:], online)


# -- the equations ----------------------------------------------------------------------------------------------------


def test_expectile_half_is_half_the_mse() -> None:
    """At expectile 0.5 the loss is half the mean squared error."""
    diff = torch.randn(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(expectile_loss(diff, 0.5), 0.5 * (diff**2).mean())


def test_expectile_of_known_sample() -> None:
    """The 0.9-expectile of [0, 1, 2, 10] is 7.75: there the loss is flat, and larger on both sides."""
    sample = torch.tensor([0.0, 1.0, 2.0, 10.0])
    value = torch.tensor(7.75, requires_grad=True)
    loss = expectile_loss(sample - value, 0.9)
    loss.backward()
    assert value.grad is not None and abs(value.grad.item()) < 1e-6
    assert all(expectile_loss(sample - v, 0.9) > loss for v in (7.7, 7.8))


def test_expectile_squares_once() -> None:
    """Doubling the error multiplies the loss by 4, not by 16 (Eq. 2 as printed squares twice)."""
    diff = torch.tensor([0.5, -2.0])
    torch.testing.assert_close(expectile_loss(2 * diff, 0.8), 4 * expectile_loss(diff, 0.8))


def test_td_target_bootstraps_unless_terminated() -> None:
    """r + discount V(s'), without the second term where the task ended."""
    target = td_target(torch.tensor([1.0, 0.0]), torch.tensor([True, False]), torch.tensor([5.0, 5.0]), 0.9)
    torch.testing.assert_close(target, torch.tensor([1.0, 4.5]))


def test_advantages_are_divided_by_their_temperature() -> None:
    """exp(A / beta), clipped, without overflow."""
    weight = advantage_weight(torch.tensor([0.0, 0.2, -0.2, 1e9]), 0.1, 100.0)
    expected = torch.tensor([1.0, float(np.exp(2)), float(np.exp(-2)), 100.0])
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=0)


def test_minimising_the_policy_loss_raises_the_weighted_likelihood() -> None:
    """Eq. 3's sign: gradient descent moves log pi up, in proportion to the weight, and weights get no gradient."""
    log_prob = torch.zeros(2, requires_grad=True)
    weight = torch.tensor([3.0, 1.0], requires_grad=True)
    policy_loss(log_prob, weight).backward()
    assert log_prob.grad is not None and log_prob.grad.tolist() == [-1.5, -0.5] and weight.grad is None
    assert policy_loss(torch.tensor([2.0, 4.0])).item() == -3


# -- critic -----------------------------------------------------------------------------------------------------------


def test_critic_loss_equals_its_equations() -> None:
    """Eq. 1 for both heads with V(s') as target, Eq. 2 with the smaller target Q."""
    heads = critic_learner(steps=1).network.heads
    q, target_q, v, next_v = torch.randn(4, 8, ENCODER.feature_dim).unbind(0)
    batch = transition()
    loss, advantage, _ = critic_loss(heads, CriticFeatures(q, target_q, v, next_v), batch, CRITIC)
    with torch.no_grad():
        target = batch.reward + CRITIC.discount * (~batch.terminated) * heads.value(next_v)
        q_loss = sum(((head(q, batch.action) - target) ** 2).mean() for head in heads.q)
        smaller = torch.stack([head(target_q, batch.action) for head in heads.target_q]).amin(0)
        expected = q_loss + expectile_loss(smaller - heads.value(v), CRITIC.expectile)
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(advantage, smaller - heads.value(v).detach())


def test_critic_trains_all_but_its_target() -> None:
    """Every trainable parameter gets a non-zero gradient; the target has none and follows at its rate."""
    learner = critic_learner()
    network = learner.network
    before = copy.deepcopy(network.state_dict())
    learner.update(transition())
    for name, parameter in network.named_parameters():
        assert ("target" in name) == (parameter.grad is None), name
        assert parameter.grad is None or bool(parameter.grad.abs().sum() > 0), name
    after = network.state_dict()
    for name in after:
        if "target_q_encoder." in name:
            source = after[name.replace("target_q_encoder", "q_encoder")]
            torch.testing.assert_close(after[name], before[name].lerp(source, CRITIC.target_rate))


def test_critic_learns_the_value_of_an_end() -> None:
    """Two kinds of image, one always rewarded and terminal, one never: Q goes to 1 and 0."""
    batch = transition()
    image = torch.where(batch.terminated[:, None, None, None], 255, 0).to(torch.uint8).expand(8, 3, 32, 32).contiguous()
    batch = batch._replace(image=image, terminated=torch.ones(8, dtype=torch.bool))
    learner = critic_learner(replace(CRITIC, learning_rate=3e-3))
    for _ in range(60):
        metrics = learner.update(batch)
    assert metrics["q_loss"] < 0.05


@pytest.mark.parametrize(
    "change",
    [{"discount": 0.5}, {"expectile": 0.5}, {"target_rate": 0.5}, {"learning_rate": 1e-4}, {"action_repeat": 3}],
)
def test_each_critic_field_changes_training(change: dict) -> None:
    """No field is decoration."""
    batch = transition()
    advantages = [
        critic_learner(config, steps=3).network.advantage(batch.image, batch.action)
        for config in (CRITIC, replace(CRITIC, **change))
    ]
    assert not torch.equal(*advantages)


@pytest.mark.parametrize("change", [{"expectile": 1.0}, {"discount": 1.1}, {"target_rate": 0.0}])
def test_bad_critic_config_is_refused(change: dict) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(CRITIC, **change)


# -- policy -----------------------------------------------------------------------------------------------------------


def test_every_policy_parameter_learns() -> None:
    """Encoder, bottleneck, domain head, policy head and its spread all get a non-zero gradient."""
    learner = policy_learner()
    learner.update(policy_batch())
    for name, parameter in learner.network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


def test_zero_weights_teach_no_action() -> None:
    """A transition of weight 0 does not move the policy head; unit weights are behaviour cloning."""
    zero = policy_learner()
    zero.update(policy_batch(torch.zeros(8)))
    assert all(p.grad is not None and bool((p.grad == 0).all()) for p in zero.network.head.parameters())
    cloned, unit = policy_learner(steps=2), policy_learner(steps=2, weight=torch.ones(8))
    for a, b in zip(cloned.network.parameters(), unit.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_cloning_reaches_the_action() -> None:
    """Behaviour cloning of one constant action converges to it."""
    learner = policy_learner(replace(POLICY, learning_rate=3e-3))
    wanted = torch.tensor([0.5, -0.25])
    for step in range(60):
        learner.update(policy_batch(seed=step)._replace(action=wanted.expand(8, A)))
    observation = {"image": transition(seed=9).image[0].permute(1, 2, 0).numpy()}
    action = ImagePolicy(learner.network).act(observation, np.random.default_rng(0))
    np.testing.assert_allclose(action, wanted, atol=0.12)


def test_acting_is_deterministic_unless_exploring() -> None:
    """The encoding at act is the mean; noise comes from the generator handed in, and actions stay in [-1, 1]."""
    policy = ImagePolicy(policy_learner().network, exploration_std=0.3)
    observation = {"image": transition().image[0].permute(1, 2, 0).numpy()}
    plain = [policy.act(observation, np.random.default_rng(seed)) for seed in range(2)]
    noisy = [policy.act(observation, np.random.default_rng(seed), explore=True) for seed in (0, 0, 1)]
    assert np.array_equal(*plain) and plain[0].shape == (A,) and plain[0].dtype == np.float32
    assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])
    wild = ImagePolicy(policy.network, exploration_std=50.0).act(observation, np.random.default_rng(0), explore=True)
    assert bool((np.abs(wild) == 1).all())


# -- practice ---------------------------------------------------------------------------------------------------------


def test_practice_is_a_learner() -> None:
    """It has the whole interface of a recipe, and names itself."""
    learner: Learner = practice()
    wanted = {name for name in vars(Learner) if not name.startswith("_")} | set(Learner.__annotations__)
    assert all(hasattr(learner, name) for name in wanted) and learner.name == "iql"
    assert learner.encode(transition().image).shape == (8, learner.feature_dim)


def test_cached_features_give_the_gradients_of_pixels() -> None:
    """The update from cached features has the gradients of one from pixels through the frozen encoders."""
    learner = practice()
    batch = transition()
    learner.loss(encoded(learner, batch))[0].backward()
    cached = {name: p.grad.clone() for name, p in learner.heads.named_parameters() if p.grad is not None}
    learner.heads.zero_grad()
    policy, critic = learner.policy, learner.critic
    q = critic.q_encoder(batch.image)
    features = CriticFeatures(q, q, critic.v_encoder(batch.image), critic.v_encoder(batch.next_image))
    loss, advantage, _ = critic_loss(critic.heads, features, batch, critic.config)
    weight = advantage_weight(advantage, POLICY.advantage_temperature, POLICY.weight_clip)
    feature = policy.encoder(batch.image)
    noise = torch.Generator().manual_seed(0)
    (loss + policy_objective(policy, feature, batch.action, batch.domain, weight, noise, None)[0]).backward()
    assert cached
    for name, parameter in learner.heads.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(cached[name], parameter.grad, rtol=1e-5, atol=1e-5)
            assert bool(parameter.grad.abs().sum() > 0), name
    trainable = {name for name, p in learner.heads.named_parameters() if p.requires_grad}
    assert set(cached) == trainable


def test_the_offline_policy_is_imitated_on_offline_frames() -> None:
    """Offline frames are pulled to what the policy did before any practice, whatever was done there; online frames are
    weighted by their advantages as ever."""
    learner, before = practice(IqlPracticeConfig(imitate_offline_policy=True)), practice()
    online = torch.arange(8) % 2 == 0
    batch = encoded(learner, transition())._replace(online=online)
    for _ in range(3):
        learner.update(batch)
    for one in (learner, before):
        one._generator.manual_seed(1)
    before.heads.load_state_dict(learner.heads.state_dict())
    feature, q, v = batch.feature.split(learner.feature_dims, 1)
    assert not torch.equal(learner.policy.mean_action(feature), practice().policy.mean_action(feature))
    next_v = batch.next_feature.split(learner.feature_dims, 1)[2]
    critic = critic_loss(learner.critic.heads, CriticFeatures(q, q, v, next_v), batch, learner.critic.config)
    weight = advantage_weight(critic.advantage, POLICY.advantage_temperature, POLICY.weight_clip)
    action = torch.where(online[:, None], batch.action, practice().policy.mean_action(feature))
    weight = torch.where(online, weight, torch.ones(8))
    wanted = policy_objective(before.policy, feature, action, batch.domain, weight, before._generator, None)[0]
    found = learner.loss(batch)[0]
    torch.testing.assert_close(found, critic.loss + wanted)
    changed = batch._replace(action=torch.where(online[:, None], batch.action, -batch.action))
    learner._generator.manual_seed(1)
    assert learner.loss(changed)[1]["policy_loss"] == pytest.approx(
        policy_objective(before.policy, feature, action, batch.domain, weight, torch.Generator().manual_seed(1), None)[
            1
        ]["policy_loss"]
    )


def test_practice_may_weigh_more_sharply_than_offline_training_did() -> None:
    """beta of practice in place of the offline policy's: the weights are those powers of each other."""
    usual, sharp = practice(), practice(IqlPracticeConfig(advantage_temperature=POLICY.advantage_temperature / 4))
    batch = encoded(usual, transition())
    _, q, v = batch.feature.split(usual.feature_dims, 1)
    next_v = batch.next_feature.split(usual.feature_dims, 1)[2]
    critic = critic_loss(usual.critic.heads, CriticFeatures(q, q, v, next_v), batch, usual.critic.config)
    once = advantage_weight(critic.advantage, POLICY.advantage_temperature, POLICY.weight_clip)
    assert usual.loss(batch)[1]["weight"] == pytest.approx(float(once.mean()))
    wanted = (once**4).clamp(max=POLICY.weight_clip).mean()
    assert sharp.loss(batch)[1]["weight"] == pytest.approx(float(wanted)) != pytest.approx(float(once.mean()))
    with pytest.raises(ValueError, match="advantage_temperature must be positive"):
        IqlPracticeConfig(advantage_temperature=0.0)


def test_practice_leaves_the_convolutions_as_they_were() -> None:
    """After updates the encoders, buffers included, are bit-identical and every trainable head has moved."""
    learner = practice()
    whole = torch.nn.ModuleList([learner.policy, learner.critic])
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    batch = encoded(learner, transition())
    for _ in range(3):
        learner.update(batch)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, before[name]) == ("encoder" in name), name


def test_practice_freezes_normalisation_statistics() -> None:
    """With BatchNorm too an image's encoding depends on no other image, and encoding changes nothing."""
    encoder = replace(ENCODER, norm="batch")
    policy = policy_learner(replace(POLICY, encoder=encoder), steps=1).network
    critic = critic_learner(replace(CRITIC, encoder=encoder), steps=1).network
    learner = IqlPractice(IqlPracticeConfig(), policy, critic, seed=0, device="cpu")
    image = transition().image
    first = learner.encode(image)
    torch.testing.assert_close(learner.encode(image[:2]), first[:2], rtol=1e-4, atol=1e-4)
    assert torch.equal(learner.encode(image), first)


def test_practice_does_not_touch_what_it_was_built_from() -> None:
    """Several practices may start from the same networks."""
    policy, critic = policy_learner(steps=1).network, critic_learner(steps=1).network
    before = copy.deepcopy(critic.state_dict())
    learner = IqlPractice(IqlPracticeConfig(), policy, critic, seed=0, device="cpu")
    learner.update(encoded(learner, transition()))
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    assert all(parameter.requires_grad for parameter in policy.encoder.parameters())


def test_practice_resumes_exactly(tmp_path) -> None:
    """Three updates, or one, a file, and two more: the same bits."""
    straight, first = practice(), practice()
    batches = [encoded(straight, transition(seed=seed)) for seed in range(3)]
    for batch in batches:
        straight.update(batch)
    first.update(batches[0])
    save_state(tmp_path / "practice.safetensors", first.state_dict())
    second = practice(seed=77)
    second.load_state_dict(load_state(tmp_path / "practice.safetensors"))
    for batch in batches[1:]:
        second.update(batch)
    for a, b in zip(straight.heads.state_dict().values(), second.heads.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_practice_acts_alike_from_pixels_and_features() -> None:
    """act is act_on of the encoded frame; exploration noise is added to it."""
    learner = practice()
    image = transition().image[:1]
    observation = {"image": image[0].permute(1, 2, 0).numpy()}
    rng = np.random.default_rng
    np.testing.assert_allclose(
        learner.act(observation, rng(0)), learner.act_on(learner.encode(image), rng(1)), atol=1e-6
    )
    plain = learner.act(observation, rng(0))
    still = practice(IqlPracticeConfig(exploration_std=0.0))
    np.testing.assert_allclose(still.act(observation, rng(0), explore=True), plain, atol=1e-6)
    assert not np.allclose(learner.act(observation, rng(0), explore=True), plain, atol=1e-3)


def test_practice_is_built_from_checkpoints(tmp_path) -> None:
    """Networks rebuilt from files encode and act as the originals."""
    policy, critic = policy_learner(steps=1), critic_learner(steps=1)
    save_state(tmp_path / "policy.safetensors", policy.state_dict())
    save_state(tmp_path / "critic.safetensors", critic.state_dict())
    rebuilt = IqlPractice(
        IqlPracticeConfig(),
        PolicyNetwork.from_state(load_state(tmp_path / "policy.safetensors")),
        CriticNetwork.from_state(load_state(tmp_path / "critic.safetensors")),
        seed=0,
        device="cpu",
    )
    original = IqlPractice(IqlPracticeConfig(), policy.network, critic.network, seed=0, device="cpu")
    image = transition().image
    assert torch.equal(rebuilt.encode(image), original.encode(image))
    assert rebuilt.policy.config == POLICY and rebuilt.critic.config == CRITIC


def test_practice_learns_on_its_device(monkeypatch) -> None:
    """A batch drawn on the CPU meets networks on another device there: every tensor that the losses read has moved."""
    networks = policy_learner(steps=1).network, critic_learner(steps=1).network
    learner = IqlPractice(IqlPracticeConfig(), *networks, seed=0, device="meta")
    read: list[Tensor] = []

    def critic(heads, features, batch, config) -> CriticLoss:
        read.extend([*features, *batch])
        return CriticLoss(torch.zeros(()), torch.zeros(len(batch.action)), {})

    def policy(network, feature, action, domain, *rest, step=None) -> tuple[Tensor, dict[str, float]]:
        read.extend([feature, action, domain])
        return torch.zeros(()), {}

    monkeypatch.setattr(iql_practice, "critic_loss", critic)
    monkeypatch.setattr(iql_practice, "policy_objective", policy)
    learner.loss(encoded(practice(), transition()))
    assert len(read) > 8 and {tensor.device.type for tensor in read} == {"meta"}


def test_policy_and_critic_must_share_actions() -> None:
    """The error gives both numbers."""
    critic = CriticLearner(CRITIC, A + 1, seed=0, device="cpu").network
    with pytest.raises(ValueError, match="2 action components and the critic 3"):
        IqlPractice(IqlPracticeConfig(), policy_learner().network, critic, seed=0)
