"""Q-learning against its equation, in environments whose values are known, and without TensorFlow."""

from common.bins import random_range
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
    one = agent(gamma=0.9, initial_value=1.0)
    transitions = ([0, 3], [1, 0], [2.0, 2.0], [1, 2], [False, True])
    metrics = one.update(*map(np.array, transitions), 0.5)
    expected = np.ones((4, 2))
    expected[0, 1] += 0.5 * (2.9 - 1)
    expected[3, 0] += 0.5 * (2.0 - 1)
    np.testing.assert_allclose(one.q_table, expected)
    np.testing.assert_allclose(metrics["td_error"], (1.9 + 1.0) / 2)
    np.testing.assert_allclose(metrics["q_values"], 1.0)  # those of before the update


def test_the_target_takes_the_best_next_action():
    one = agent(gamma=0.5)
    one.q_table[2] = [-3.0, 8.0]
    one.update(np.array([0]), np.array([0]), np.array([1.0]), np.array([2]), np.array([False]), 1.0)
    assert one.q_table[0, 0] == 1.0 + 0.5 * 8.0


def test_environments_in_the_same_pair_share_one_update():
    """The sum of k errors would be an update with k α, which diverges above 2."""
    one = agent()
    states, actions = np.array([0, 0, 0]), np.array([0, 1, 0])
    one.update(states, actions, np.array([1.0, 5.0, 3.0]), np.ones(3, int), np.ones(3, bool), 0.1)
    np.testing.assert_allclose(one.q_table[0], [0.1 * (1 + 3) / 2, 0.1 * 5])
    one.update(
        np.array([0, 2]), np.array([1, 0]), np.array([5.0, 7.0]), np.ones(2, int), np.ones(2, bool), 1.0
    )
    np.testing.assert_allclose([one.q_table[0, 1], one.q_table[2, 0]], [5.0, 7.0])  # two pairs


def test_an_initial_value_that_is_an_integer_learns():
    """The table holds floats whatever the option is: a table of integers would round every update away."""
    one = agent(initial_value=1)
    assert one.q_table.dtype == np.float64 and (one.q_table == 1.0).all()
    one.update(np.array([0]), np.array([0]), np.array([1.5]), np.array([2]), np.array([True]), 0.5)
    assert one.q_table[0, 0] == 1.25


def test_training_with_an_initial_value_that_is_an_integer(tmp_path):
    config = Config(env_id="tests.environments:Terminating-v0", initial_value=3, bins=(1,), learning_rate=0.1)
    config.total_timesteps, config.eval_episodes, config.runs_dir = 2_000, 0, str(tmp_path)
    np.testing.assert_allclose(train(config).model, 1.0, atol=0.01)


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


def test_schedules(tmp_path, monkeypatch):
    """ε and α of the first step are the options, and fall linearly from there."""
    epsilons, rates = [], []
    act, update = Agent.act, Agent.update
    monkeypatch.setattr(Agent, "act", lambda self, *args: epsilons.append(args[-1]) or act(self, *args))
    monkeypatch.setattr(Agent, "update", lambda self, *args: rates.append(args[-1]) or update(self, *args))
    config = Config(
        env_id="tests.environments:Terminating-v0",
        total_timesteps=100,
        num_envs=1,
        learning_rate=0.4,
        anneal_learning_rate=0.5,
        start_epsilon=0.9,
        end_epsilon=0.2,
        exploration_fraction=0.5,
        bins=(1,),
        eval_episodes=0,
        runs_dir=str(tmp_path),
    )
    train(config)
    np.testing.assert_allclose(epsilons, np.interp(np.arange(100), [0, 50], [0.9, 0.2]))
    np.testing.assert_allclose(rates, np.interp(np.arange(100), [0, 100], [0.4, 0.2]))


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


def test_needs_no_tensorflow(tmp_path):
    """Here it cannot even be imported."""
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


def test_bins_are_one_count_or_one_per_number(tmp_path):
    """A space without bounds needs no more: its edges are the range that random actions reach."""
    options = {"env_id": "tests.environments:Unbounded-v0", "runs_dir": str(tmp_path)}
    with pytest.raises(UserError, match="give --bins one count or 2"):
        train(Config(bins=(3, 3, 3), **options))
    assert not list(tmp_path.iterdir())
    for bins, states in (((4,), 16), ((3, 5), 15)):
        result = train(Config(bins=bins, total_timesteps=20, eval_episodes=1, **options))
        assert result.model.shape == (states, 2)


def test_a_saved_table_is_evaluated_with_the_same_bins(tmp_path):
    """The range that random actions reach is found anew, and must be the same."""
    config = Config(total_timesteps=3_000, eval_episodes=5, runs_dir=str(tmp_path))
    result = train(config)
    random_range.cache_clear()
    np.testing.assert_array_equal(evaluate(result.model, config), result.evaluation_returns)


def test_dict_observations_train(tmp_path):
    config = Config(env_id="tests.environments:DictObservation-v0", bins=(2,), total_timesteps=300)
    config.eval_episodes, config.runs_dir = 2, str(tmp_path)
    result = train(config)
    assert result.model.shape == (2**5, 2) and len(result.evaluation_returns) == 2
