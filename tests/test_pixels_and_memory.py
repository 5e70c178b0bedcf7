"""The DQN family on images and on sequences: training, saving, and evaluating the saved model."""

import importlib

import numpy as np
import pytest

from tests.conftest import DQN_FAMILY, error_line

SHORT = {
    "num_envs": 1,
    "total_timesteps": 300,
    "learning_starts": 100,
    "train_frequency": 50,
    "gradient_steps": 2,
}


def train_with_its_buffer(script, monkeypatch, **options):
    """Train a script, and return its result and its replay buffer."""
    module, buffers = importlib.import_module(f"{script}.{script}"), []

    class Kept(module.ReplayBuffer):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            buffers.append(self)

    monkeypatch.setattr(module, "ReplayBuffer", Kept)
    config = module.Config(**SHORT | options)
    return config, module.train(config), *buffers


def test_pong_smoke(tmp_path, monkeypatch):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    config, result, buffer = train_with_its_buffer(
        "dqn",
        monkeypatch,
        env_id="ALE/Pong-v5",
        network="cnn",
        frame_stack=4,
        hidden_sizes=(32,),
        clip_rewards=True,
        terminal_on_life_loss=True,
        buffer_size=10_000,
        batch_size=8,
        eval_episodes=0,
        runs_dir=str(tmp_path),
    )
    assert result.model.input_shape == (None, 4, 84, 84, 1)
    assert len(buffer) == 300 and buffer.frames.written <= 300 + 2
    assert buffer.nbytes / config.buffer_size < 1.05 * 84 * 84  # 56,461 if both stacks were kept
    batch = buffer.sample(1, 32)
    assert batch.observations.shape == (1, 32, 4, 84, 84, 1) and batch.observations.dtype == np.uint8
    np.testing.assert_array_equal(batch.observations[0, :, 1:], batch.next_observations[0, :, :-1])


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_minatar_smoke(script, tmp_path, monkeypatch):
    pytest.importorskip("minatar")
    config, result, buffer = train_with_its_buffer(
        script,
        monkeypatch,
        env_id="MinAtar/Breakout-v1",
        network="cnn",
        hidden_sizes=(16, 16),
        num_envs=2,
        eval_episodes=2,
        runs_dir=str(tmp_path),
    )
    assert result.model.input_shape == (None, 10, 10, 4)
    assert len(buffer) == 300 and set(np.unique(buffer.sample(1, 50).observations)) == {0, 255}
    evaluate = importlib.import_module(f"{script}.{script}").evaluate
    np.testing.assert_array_equal(evaluate(result.model, config), result.evaluation_returns)


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_a_sequence_is_trained_on_and_its_model_plays(script, command_here, only_run):
    network = "--env-id HiddenVelocityCartPole-v1 --network lstm --frame-stack 4 --hidden-sizes 8 8"
    short = "--total-timesteps 300 --learning-starts 100 --train-frequency 50 --gradient-steps 2"
    trained = command_here(script, *network.split(), *short.split(), "--eval-episodes", 3)
    assert trained.returncode == 0, trained.stderr
    played = command_here(script, "--evaluate", only_run() / "model.keras")
    assert played.stdout.splitlines()[-1] == trained.stdout.splitlines()[-1], played.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--network cnn", "error: --network cnn needs uint8 images"),
        ("--network lstm", "error: --network lstm reads a sequence: give --frame-stack"),
        ("--terminal-on-life-loss", "error: --terminal-on-life-loss needs an ALE game"),
    ],
)
def test_a_network_that_cannot_read_the_environment_is_one_line(options, words, command_here, tmp_path):
    assert error_line(command_here("dqn", *options.split())).startswith(words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", ["dqn", "ppo", "ddpg"])
def test_images_without_a_convolutional_network_are_one_line(script, command_here, tmp_path):
    line = error_line(command_here(script, "--env-id", "tests.environments:Picture-v0"))
    assert "--network cnn --frame-stack 4" in line and "ppo/ppo.py" in line
    assert not (tmp_path / "runs").exists()
