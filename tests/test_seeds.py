"""The environments of a training, of the same training resumed, and of the evaluation share no seed."""

import dataclasses

from tests.conftest import environment, metrics
from tests.environments import Recorded


def test_no_seed_serves_twice(script, module, configured):
    """Episodes that were trained on would make the evaluation look better than the policy is."""
    rollouts = {"num_steps": 4, "num_minibatches": 2}
    options = {"num_envs": 2, "total_timesteps": 8, "eval_episodes": 5, "bins": (2,), "eager": True}
    config = configured(script, env_id=environment(script, "Recorded"), **rollouts, **options)
    Recorded.forget()
    result = module(script).train(config)
    training, evaluation = Recorded.seeds[:2], Recorded.seeds[2:]
    assert len({*training, *evaluation}) == 2 + 5

    more = int(metrics(result.folder)["global_step"][-1]) + 1
    Recorded.forget()
    module(script).train(dataclasses.replace(config, resume=str(result.folder), total_timesteps=more))
    resumed, evaluation_again = Recorded.seeds[:2], Recorded.seeds[2:]
    assert len({*training, *evaluation, *resumed}) == 2 + 5 + 2
    assert evaluation_again == evaluation
