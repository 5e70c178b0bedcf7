"""REINFORCE, A2C, PPO, and TRPO on images: frames stored once, the convolutional update, and whole runs."""

import importlib
import tracemalloc

from common.episode_buffer import EpisodeBuffer, join_observations
from common.rollout import Rollout, RolloutBuffer, assemble, flatten, outputs_of, take
import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import DQN_FAMILY, error_line
from tests.rollouts import SCRIPTS, assert_gradient, record_gradients, train_briefly, update

ACTIONS = gym.spaces.Discrete(3)
SHARING, APART = ("a2c", "ppo"), ("reinforce", "trpo")


def space(frame_stack, shape=(5, 5, 1)):
    """Return the space of images of this shape, or of stacks of them."""
    return gym.spaces.Box(0, 255, (frame_stack, *shape) if frame_stack > 1 else shape, np.uint8)


def played(num_steps, num_envs, frame_stack, shape=(5, 5, 1), ends=0.3, lives=False, seed=0):
    """Return observations, true next observations, and ends of episodes.

    All frames differ. A new episode starts with its first frame repeated; with `lives`, every second end is
    the loss of a life, after which the stack goes on.
    """
    rng = np.random.default_rng(seed)
    ended, frames = rng.random((num_steps, num_envs)) < ends, []

    def new_frame():
        frames.append(np.random.default_rng(len(frames)).integers(256, size=shape).astype(np.uint8))
        return frames[-1]

    def stack_of(env):
        return np.array(stacks[env][-frame_stack:]) if frame_stack > 1 else stacks[env][-1]

    stacks = [[new_frame()] * frame_stack for _ in range(num_envs)]
    observations, next_observations, num_ends = [], [], 0
    for t in range(num_steps):
        observations.append([stack_of(env) for env in range(num_envs)])
        for env in range(num_envs):
            stacks[env].append(new_frame())
        next_observations.append([stack_of(env) for env in range(num_envs)])
        for env in np.flatnonzero(ended[t]):
            num_ends += 1
            if lives and num_ends % 2:
                stacks[env].append(new_frame())
            else:
                stacks[env] += [new_frame()] * frame_stack
    return np.array(observations), np.array(next_observations), ended


def fill(buffer, observations, next_observations, ended):
    """Add the steps to a rollout buffer, with the number of each step as its action and its reward."""
    num_envs = len(ended[0])
    for t, (now, following, over) in enumerate(zip(observations, next_observations, ended)):
        numbers = t * num_envs + np.arange(num_envs)
        buffer.add(now, numbers % 3, numbers / 10, following, over, np.zeros_like(over))
    return buffer.rollout


@pytest.mark.parametrize("lives", [False, True])
@pytest.mark.parametrize("frame_stack", [1, 2, 4])
def test_a_rollout_holds_each_frame_once(frame_stack, lives):
    """Two rollouts, the second of which starts within the episodes of the first."""
    observations, next_observations, ended = played(40, 3, frame_stack, lives=lives)
    buffer = RolloutBuffer(20, 3, space(frame_stack), ACTIONS, frame_stack=frame_stack)
    rollouts = [fill(buffer, observations[k:][:20], next_observations[k:][:20], ended[k:]) for k in (0, 20)]
    for k, rollout in zip((0, 20), rollouts):
        for field, expected in ((1, observations), (2, next_observations)):
            images = rollout.observations if field == 1 else rollout.next_observations
            whole = assemble(images)
            assert whole.dtype == images.frames.dtype == np.uint8
            np.testing.assert_array_equal(whole, expected[k : k + 20])
            flat = flatten(images)
            np.testing.assert_array_equal(assemble(flat), flatten(tf.constant(expected[k : k + 20])))
            rows = np.array([7, 0, 59, 7])
            np.testing.assert_array_equal(assemble(take(flat, rows)), assemble(flat).numpy()[rows])
        frames = rollout.observations.frames.numpy()
        needed = np.concatenate([observations[k : k + 20], next_observations[k : k + 20]])
        distinct = {frame.tobytes() for frame in needed.reshape(-1, 5, 5, 1)}
        assert len(frames) == len(distinct) == len({frame.tobytes() for frame in frames})


@pytest.mark.parametrize("frame_stack", [1, 3])
def test_episodes_hold_each_frame_once(frame_stack):
    observations, _, ended = played(60, 3, frame_stack, ends=0.1)
    buffer = EpisodeBuffer(3, space(frame_stack), ACTIONS, frame_stack=frame_stack)
    plain, starts = [], [0, 0, 0]
    for t in range(60):
        buffer.add(observations[t], np.zeros(3, int), np.zeros(3), ended[t])
        for env in np.flatnonzero(ended[t]):
            plain.append(observations[starts[env] : t + 1, env])
            starts[env] = t + 1
    episodes = buffer.pop_episodes()
    assert len(plain) > 5
    for episode, expected in zip(episodes, plain, strict=True):
        assert episode.frames.dtype == np.uint8
        assert len(episode.frames) == len({frame.tobytes() for frame in expected.reshape(-1, 5, 5, 1)})
        np.testing.assert_array_equal(episode.frames[episode.observations], expected)
    np.testing.assert_array_equal(assemble(join_observations(episodes)), np.concatenate(plain))


@pytest.mark.parametrize("kind", [RolloutBuffer, EpisodeBuffer])
def test_memory_of_a_rollout(kind):
    """At most 5 % more than its frames. Full stacks would take 8 times, or for episodes 4 times as much."""
    num_steps, num_envs, shape = 400, 8, (84, 84, 1)
    arguments = (num_steps, num_envs) if kind is RolloutBuffer else (num_envs,)
    num_ends = 0
    rng = np.random.default_rng(0)
    tracemalloc.start()
    buffer = kind(*arguments, space(4, shape), ACTIONS, frame_stack=4)
    stacks, zeros = np.zeros((num_envs, 4, *shape), np.uint8), np.zeros(num_envs, int)
    for t in range(num_steps):
        last, stacks = stacks, np.roll(stacks, -1, axis=1)
        stacks[:, -1] = rng.integers(256, size=(num_envs, *shape), dtype=np.uint8)
        ended = 11 * np.arange(num_envs) == t % 100
        num_ends += ended.sum()
        if kind is RolloutBuffer:
            buffer.add(last, zeros, zeros, stacks, zeros, ended)
        else:
            buffer.add(last, zeros, zeros, ended)
        stacks[ended] = rng.integers(256, size=(num_envs, 1, *shape), dtype=np.uint8)[ended]
    num_frames = num_steps * num_envs + (num_envs + num_ends if kind is RolloutBuffer else 0)
    memory = tracemalloc.get_traced_memory()[0] - last.nbytes - 2 * stacks.nbytes  # the ring keeps a copy
    tracemalloc.stop()
    assert 1.0 <= memory / (num_frames * 84 * 84) < 1.05
    if kind is RolloutBuffer:
        assert buffer.nbytes < 1.05 * num_frames * 84 * 84


@pytest.mark.parametrize("frame_stack", [1, 2])
def test_an_image_goes_through_a_network_once_and_few_do_at_a_time(frame_stack, monkeypatch):
    monkeypatch.setattr("common.rollout.IMAGES_AT_ONCE", 4)
    steps = played(20, 3, frame_stack)
    rollout = fill(RolloutBuffer(20, 3, space(frame_stack), ACTIONS, frame_stack=frame_stack), *steps)
    calls = []

    def network(images):
        calls.append([image.numpy().tobytes() for image in images])
        return tf.reduce_sum(tf.cast(images, tf.float32), axis=(-3, -2))

    both = outputs_of(network, rollout)
    for outputs, images in zip(both, steps, strict=False):
        expected = images.astype(np.float32).sum(axis=(-3, -2)).reshape(outputs.shape)
        np.testing.assert_array_equal(outputs, expected)
    distinct = {image.tobytes() for images in steps[:2] for image in images.reshape(60, -1)}
    seen = [image for call in calls for image in call]
    assert set(seen) == distinct and len(seen) < len(distinct) + 4 and {len(call) for call in calls} == {4}


# The update


def image_agent(script, frame_stack=2, **options):
    """Return an agent for images of 5 × 5 pixels, with parameters unlike the initial ones."""
    module = importlib.import_module(f"{script}.{script}")
    options = {"num_envs": 3, "network": "cnn", "frame_stack": frame_stack, "hidden_sizes": (4,)} | options
    keras.utils.set_random_seed(0)
    agent = module.Agent(space(frame_stack), ACTIONS, module.Config(**options))
    rng = np.random.default_rng(1)
    for parameter in (*agent.policy.parameters, *agent.critic.trainable_variables):
        parameter.assign(parameter + 0.1 * rng.normal(size=parameter.shape))
    return agent


def image_rollout(frame_stack=2, num_steps=8, num_envs=3):
    """Return a rollout that holds each frame once, and the same one with whole stacks."""
    observations, next_observations, ended = played(num_steps, num_envs, frame_stack)
    buffer = RolloutBuffer(num_steps, num_envs, space(frame_stack), ACTIONS, frame_stack=frame_stack)
    rollout = fill(buffer, observations, next_observations, ended)
    plain = rollout._replace(
        observations=tf.constant(observations), next_observations=tf.constant(next_observations)
    )
    return rollout, plain


def convolutional(parameters, images):
    """Return the outputs of the convolution, a hidden layer, and an output layer, in float64."""
    kernel, bias, dense_kernel, dense_bias, out_kernel, out_bias = parameters
    x = np.moveaxis(np.asarray(images, np.float64)[..., 0], 1, -1) / 255  # frames become channels
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # (batch, 3, 3, frames, 3, 3)
    x = np.maximum(np.einsum("bijcxy,xycf->bijf", windows, kernel) + bias, 0.0)
    x = np.maximum(x.reshape(len(x), -1) @ dense_kernel + dense_bias, 0.0)
    return x @ out_kernel + out_bias


@pytest.mark.parametrize("script", SHARING)
def test_gradient_of_the_shared_trunk_against_finite_differences(script, monkeypatch):
    """The loss of policy, critic, and entropy; the trunk gets the gradients of all three."""
    options = {"entropy_coefficient": 0.3, "value_coefficient": 0.7, "normalize_advantages": False}
    agent, (rollout, _) = image_agent(script, **options), image_rollout()
    batch = agent.make_batch(rollout)
    images = assemble(batch.observations).numpy()
    taken, advantages, returns, *old_log_probs = (field.numpy() for field in batch[1:])
    parameters = [parameter.numpy().astype(np.float64) for parameter in agent.parameters]
    assert [p.shape for p in parameters] == [(3, 3, 2, 16), (16,), (144, 4), (4,), (4, 3), (3,), (4, 1), (1,)]
    if old_log_probs:  # ratios within and beyond the clip range
        ratios = np.random.default_rng(0).choice([0.7, 0.9, 1.1, 1.3], size=len(taken))
        batch = batch._replace(log_probs=old_log_probs[0] - np.log(ratios).astype(np.float32))

    def loss():
        logits = convolutional(parameters[:6], images)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        log_probs = log_p[np.arange(len(taken)), taken]
        gain = advantages * log_probs
        if old_log_probs:
            ratio = np.exp(log_probs - batch.log_probs)
            gain = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
        values = convolutional([*parameters[:4], *parameters[6:]], images)[:, 0]
        entropy = -(np.exp(log_p) * log_p).sum(axis=1)
        return -gain.mean() + 0.7 * 0.5 * ((returns - values) ** 2).mean() - 0.3 * entropy.mean()

    gradients = record_gradients(agent, monkeypatch, step=False)
    agent.learn(batch)
    assert_gradient(loss, parameters, *gradients)


@pytest.mark.parametrize("script", ["a2c", "ppo", "trpo"])
def test_advantages_come_from_the_values_of_the_images(script):
    """With λ = 0, the advantage is the TD error."""
    agent, (rollout, plain) = image_agent(script, gae_lambda=0.0, gamma=0.9), image_rollout()
    trunk = agent.trunk.trainable_variables if script in SHARING else []
    parameters = [p.numpy() for p in (*trunk, *agent.critic.trainable_variables)]
    values, next_values = (
        convolutional(parameters, images.numpy().reshape(-1, 2, 5, 5, 1)).reshape(8, 3)
        for images in (plain.observations, plain.next_observations)
    )
    rewards, terminated = rollout.rewards.numpy(), rollout.terminated.numpy()
    expected = rewards + 0.9 * np.where(terminated, 0.0, next_values) - values
    assert terminated.any() and not terminated.all()
    np.testing.assert_allclose(agent.make_batch(rollout).advantages, expected.ravel(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("frame_stack", [1, 2])
@pytest.mark.parametrize("script", SCRIPTS)
def test_an_update_is_the_same_with_whole_stacks(script, frame_stack):
    """Frames that are stored once, and observations as one array: equal metrics and parameters."""
    after = []
    for rollout in image_rollout(frame_stack):
        minibatches = {"num_epochs": 2, "num_minibatches": 4} if script in ("ppo", "trpo") else {}
        agent = image_agent(script, frame_stack, **minibatches)
        metrics = {name: value.numpy() for name, value in update_with(agent, rollout).items()}
        parameters = (*agent.policy.parameters, *agent.critic.trainable_variables)
        after.append((metrics, [parameter.numpy() for parameter in parameters]))
    for name, value in after[0][0].items():
        np.testing.assert_allclose(value, after[1][0][name], rtol=1e-4, atol=1e-6, err_msg=name)
    for parameter, other in zip(after[0][1], after[1][1]):
        np.testing.assert_allclose(parameter, other, rtol=1e-4, atol=1e-5)
    before = [p.numpy() for p in image_agent(script, frame_stack).policy.parameters]
    assert all((old != new).any() for old, new in zip(before, after[0][1]))


def update_with(agent, rollout: Rollout):
    """Call `agent.update`, as `tests.rollouts.update` does; REINFORCE takes images and rewards as returns."""
    script = importlib.import_module(type(agent).__module__)
    if hasattr(script, "RolloutBuffer"):
        rewards = rollout.rewards.numpy()
        return update(agent, rollout._replace(rewards=rewards))
    fields = (rollout.observations, rollout.actions, rollout.rewards)
    return agent.update(script.Batch(*map(flatten, fields)), tf.constant(1e-3))


@pytest.mark.parametrize("script", SCRIPTS)
def test_which_scripts_share_layers(script):
    """A step on TRPO's policy must not move its critic."""
    agent = image_agent(script)
    actor = {id(variable) for variable in agent.policy.network.trainable_variables}
    assert len(actor) == 6
    if script in SHARING:
        assert actor > {id(variable) for variable in agent.trunk.trainable_variables}
        assert len(agent.trunk.trainable_variables) == 4 and len(agent.parameters) == 8
    assert not actor & {id(variable) for variable in agent.critic.trainable_variables}


@pytest.mark.parametrize("script", SHARING)
def test_perceptrons_share_no_weights(script, module):
    agent = module(script).Agent(gym.spaces.Box(-1, 1, (3,)), ACTIONS, module(script).Config())
    assert not agent.trunk.variables and len(agent.critic.trainable_variables) == 6


@pytest.mark.parametrize("script", SCRIPTS)
def test_frames_of_any_number_are_one_trace(script):
    minibatches = {"num_epochs": 1, "num_minibatches": 2} if script in ("ppo", "trpo") else {}
    agent, counts = image_agent(script, **minibatches), set()
    for ends in (0.0, 0.3, 1.0):
        buffer = RolloutBuffer(8, 3, space(2), ACTIONS, frame_stack=2)
        rollout = fill(buffer, *played(8, 3, 2, ends=ends))
        counts.add(len(rollout.observations.frames.numpy()))
        update_with(agent, rollout)
    assert len(counts) == 3
    assert agent.update.experimental_get_tracing_count() == 1


# Whole runs

SHORT_RUNS = {
    "reinforce": {"batch_size": 20},
    "a2c": {"num_steps": 8},
    "ppo": {"num_steps": 16, "num_epochs": 2, "num_minibatches": 2},
    "trpo": {"num_steps": 16, "num_epochs": 2, "num_minibatches": 2, "cg_iterations": 2},
}


@pytest.mark.parametrize(
    ("env_id", "frame_stack"), [("MinAtar/Breakout-v1", 1), ("tests.environments:Picture-v0", 3)]
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_on_images_and_its_saved_model(script, env_id, frame_stack, module, tmp_path, monkeypatch):
    """Also with evaluations during training, and continued."""
    name, buffers = "EpisodeBuffer" if script == "reinforce" else "RolloutBuffer", []
    make = getattr(module(script), name)
    monkeypatch.setattr(
        module(script), name, lambda *args, **options: buffers.append(make(*args, **options)) or buffers[-1]
    )
    if env_id.startswith("MinAtar"):
        pytest.importorskip("minatar")
    options = {"env_id": env_id, "network": "cnn", "frame_stack": frame_stack, "hidden_sizes": (8,)}
    options |= {"num_envs": 2, "total_timesteps": 96, "eval_frequency": 32, "eval_episodes": 2}
    options |= {"eager": env_id.startswith("tests")} | SHORT_RUNS[script]
    result = train_briefly(module(script), tmp_path, **options)
    assert buffers[0].frames  # they are stored once
    saved = keras.models.load_model(result.folder / "model.keras")
    config = module(script).Config(**options)
    np.testing.assert_array_equal(module(script).evaluate(saved, config), result.evaluation_returns)
    shape = (10, 10, 4) if frame_stack == 1 else (3, 12, 12, 3)
    for network in result.networks.values():
        assert network.input_shape == (None, *shape)
    images = np.random.default_rng(0).integers(256, size=(2, *shape)).astype(np.uint8)
    np.testing.assert_allclose(saved(images), result.model(images), rtol=1e-5)
    assert len((result.folder / "evaluations.csv").read_text().splitlines()) == 4
    more = options | {"total_timesteps": 160, "resume": str(result.folder)}
    assert train_briefly(module(script), tmp_path, **more).folder == result.folder


@pytest.mark.parametrize("executor", ["sync", "envpool"])
def test_ppo_on_an_atari_game(executor, module, tmp_path):
    """Learning from clipped rewards and single lives; returns and evaluations of whole games."""
    for package in ("ale_py", "cv2", *(["envpool"] if executor == "envpool" else [])):
        pytest.importorskip(package)
    env_id = "ALE/Pong-v5" if executor == "sync" else "ALE/Breakout-v5"
    result = train_briefly(
        module("ppo"),
        tmp_path,
        env_id=env_id,
        executor=executor,
        network="cnn",
        frame_stack=4,
        clip_rewards=True,
        terminal_on_life_loss=True,
        hidden_sizes=(16,),
        num_envs=2,
        total_timesteps=64,
        eval_episodes=0,
        log_frequency=1,
        **SHORT_RUNS["ppo"],
    )
    assert result.model.input_shape == (None, 4, 84, 84, 1)
    assert len((result.folder / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("script", SCRIPTS)
def test_stacks_of_vectors_share_the_statistics_of_their_numbers(script, module, tmp_path):
    options = {"env_id": "CartPole-v1", "frame_stack": 3, "normalize_observations": True, "eager": True}
    options |= {"num_envs": 2, "total_timesteps": 96, "hidden_sizes": (8,)} | SHORT_RUNS[script]
    result = train_briefly(module(script), tmp_path, **options)
    layer = result.model.layers[0]
    assert result.model.input_shape == (None, 3, 4) and layer.moving_mean.shape == (4,)
    assert (layer.moving_variance.numpy() != 1).all()
    saved = keras.models.load_model(result.folder / "model.keras")
    config = module(script).Config(**options | {"eval_episodes": 2})
    np.testing.assert_array_equal(module(script).evaluate(saved, config), result.evaluation_returns)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--network cnn", "--network cnn needs uint8 images"),
        ("--network lstm", "--network"),
        ("--terminal-on-life-loss", "--terminal-on-life-loss needs an ALE game"),
        (
            "--network cnn --normalize-observations --env-id tests.environments:Picture-v0",
            "--normalize-observations is for vectors",
        ),
        ("--network cnn --env-id tests.environments:TinyPicture-v0", "images of 3 × 3 pixels or more"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, words, command_here, tmp_path):
    assert words in error_line(command_here("a2c", *options.split()))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", [*SCRIPTS, *DQN_FAMILY])
def test_xla_compiles_the_updates_of_vectors_and_not_those_of_images(script):
    """XLA makes convolutions on a CPU more than ten times slower."""
    module = importlib.import_module(f"{script}.{script}")
    for network, shape in (("mlp", (4,)), ("cnn", (5, 5, 1))):
        config = module.Config(network=network, hidden_sizes=(4,))
        agent = module.Agent(gym.spaces.Box(0, 255, shape, np.uint8), ACTIONS, config)
        compiled = network == "mlp" and script != "reinforce"  # whose batches change their length
        assert bool(agent.update._jit_compile) == compiled
