"""Actions beyond the bounds: clipped for the environment, and learned from as they were drawn."""

import numpy as np
import pytest

OPTIONS = {"num_envs": 2, "num_steps": 16, "num_epochs": 2, "num_minibatches": 2, "learning_rate": 0.01}


@pytest.mark.parametrize("script", ["reinforce", "a2c", "ppo", "trpo"])
def test_who_clips_the_action_makes_no_difference(script, module, configured):
    """The environment clips to [−1, 1], whether its space has these bounds or none.

    So both spaces give the same rewards; a script that learned from what is left of an action within the
    bounds would learn another policy there.
    """
    results = []
    for space in ("Bounded", "Unbounded"):
        env_id = f"tests.environments:Clipping{space}-v0"
        config = configured(script, env_id=env_id, total_timesteps=100, eager=True, **OPTIONS)
        results.append(module(script).train(config))
    bounded, unbounded = results
    np.testing.assert_allclose(bounded.episode_returns, unbounded.episode_returns, rtol=1e-5)
    for name, network in bounded.networks.items():
        observations = np.linspace(-1.0, 1.0, 5, dtype=np.float32)[:, None]
        same = unbounded.networks[name](observations)
        np.testing.assert_allclose(network(observations), same, rtol=1e-4, atol=1e-6, err_msg=name)
