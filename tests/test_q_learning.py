"""Q-learning against its equation, against values worked out by hand, and without TensorFlow."""

from common.errors import UserError
import gymnasium as gym
import numpy as np
import pytest

from q_learning.q_learning import Agent, Config, evaluate, train
from tests.conftest import ROOT, run_script

STATES, ACTIONS = gym.spaces.Discrete(4), gym.spaces.Discrete(2)


def agent(**options):
    return Agent(STATES, ACTIONS, Config(**options))


def test_update_by_hand():
    """Q = 1 everywhere, α = 0.5, γ = 0.9: the target is 2 + 0.9 · 1 = 2.9, and 2 where the episode ends."""
    one = agent(learning_rate=0.5, gamma=0.9, initial_value=1.0)
    one.update(np.array([0, 3]), np.array([1, 0]), np.full(2, 2.0), np.array([1, 2]), np.array([False, True]))
    expected = np.ones((4, 2))
    expected[0, 1] += 0.5 * (2.9 - 1)
    expected[3, 0] += 0.5 * (2.0 - 1)
    np.testing.assert_allclose(one.q_table, expected)


def test_the_target_takes_the_best_next_action():
    one = agent(learning_rate=1.0, gamma=0.5)
    one.q_table[2] = [-3.0, 8.0]
    one.update(np.array([0]), np.array([0]), np.array([1.0]), np.array([2]), np.array([False]))
    assert one.q_table[0, 0] == 1.0 + 0.5 * 8.0


def test_environments_in_one_pair_make_one_step_together():
    """Added up, k errors would be a step of k α, and beyond 2 that diverges."""
    one = agent(learning_rate=0.1)
    states, actions = np.array([0, 0, 0]), np.array([0, 1, 0])
    one.update(states, actions, np.array([1.0, 5.0, 3.0]), np.ones(3, int), np.ones(3, bool))
    np.testing.assert_allclose(one.q_table[0], [0.1 * (1 + 3) / 2, 0.1 * 5])


def test_ties_are_broken_at_random_and_others_not():
    one = agent()
    counts = np.bincount(one.act(np.zeros(4000, int), epsilon=0.0), minlength=2)
    np.testing.assert_allclose(counts / 4000, 0.5, atol=0.04)
    one.q_table[0] = [0.0, 1e-9]
    assert (one.act(np.zeros(100, int), epsilon=0.0) == 1).all()
    agreement = (one.act(np.zeros(4000, int), epsilon=0.4) == 1).mean()
    np.testing.assert_allclose(agreement, 0.6 + 0.4 / 2, atol=0.03)


def test_negative_values_are_compared_too():
    one = agent()
    one.q_table[0] = [-5.0, -1.0]
    assert (one.act(np.zeros(50, int), epsilon=0.0) == 1).all()


@pytest.mark.parametrize(("name", "value"), [("Truncating", 10.0), ("Terminating", 1.0)])
def test_q_of_a_one_state_environment(name, value, tmp_path):
    """A time limit does not end the value of a state: 1 / (1 − 0.9) = 10; a terminal step does: 1."""
    config = Config(
        env_id=f"tests.environments:{name}-v0",
        total_timesteps=4_000,
        gamma=0.9,
        learning_rate=0.5,
        bins=(1,),
        eval_episodes=2,
        runs_dir=str(tmp_path),
    )
    np.testing.assert_allclose(train(config).model, value, rtol=0.01)


def test_finds_the_way_along_the_cliff(tmp_path):
    config = Config(
        env_id="CliffWalking-v1",
        total_timesteps=30_000,
        learning_rate=0.5,
        eval_episodes=3,
        runs_dir=str(tmp_path),
    )
    result = train(config)
    np.testing.assert_array_equal(result.evaluation_returns, [-13.0] * 3)
    np.testing.assert_array_equal(evaluate(result.model, config), result.evaluation_returns)
    with np.load(result.folder / "model.npz") as saved:
        np.testing.assert_array_equal(saved["model"], result.model)


def test_plays_a_saved_table_and_refuses_one_of_another_environment(tmp_path):
    process = run_script(tmp_path, "q_learning", "--total-timesteps", 500, "--eval-episodes", 2)
    assert process.returncode == 0, process.stderr
    line = process.stdout.splitlines()[-1]
    (folder,) = (tmp_path / "runs").iterdir()
    for path in (folder, folder / "model.npz"):
        assert run_script(tmp_path, "q_learning", "--evaluate", path).stdout.splitlines()[-1] == line
    process = run_script(tmp_path, "q_learning", "--evaluate", folder, "--env-id", "Taxi-v4")
    assert process.returncode == 2 and "give the --env-id it was trained on" in process.stderr


def test_needs_no_tensorflow(tmp_path):
    """Neither imported nor there to be imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name in ('tensorflow', 'keras'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    options = ["--total-timesteps", "300", "--eval-episodes", "1", "--checkpoint-frequency", "100"]
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = run_script(tmp_path, "q_learning", *options, env=path)
    assert process.returncode == 0, process.stderr
    assert "evaluation: mean return" in process.stdout


def test_an_unbounded_box_without_bounds_is_told(tmp_path):
    with pytest.raises(UserError, match="give --low and --high, 2 numbers each"):
        train(Config(env_id="tests.environments:Unbounded-v0", bins=(3,), runs_dir=str(tmp_path)))
    with pytest.raises(UserError, match="give --bins one count or 2"):
        train(Config(env_id="tests.environments:Unbounded-v0", bins=(3, 3, 3), runs_dir=str(tmp_path)))
    assert not list(tmp_path.iterdir())
    bounds = {"low": (0.0, 0.0), "high": (4.0, 4.0)}
    config = Config(
        env_id="tests.environments:Unbounded-v0", bins=(4,), total_timesteps=20, eval_episodes=1, **bounds
    )
    config.runs_dir = str(tmp_path)
    assert train(config).model.shape == (16, 2)
