"""One training run of Stable-Baselines3 (SB3), sb3-contrib, or SBX (SB3 in JAX).

Needs only benchmarks/requirements-peers.txt and no other file of this repository, so that these libraries can
live in their own virtual environment. speed.py passes the task as JSON and reads the JSON that is printed.
"""

import importlib
from importlib.metadata import version
import json
import sys
import time

NAMES = {"sb3": "SB3", "sb3-contrib": "sb3-contrib", "sbx": "SBX"}
MODULES = {"sb3": "stable_baselines3", "sb3-contrib": "sb3_contrib", "sbx": "sbx"}
PACKAGES = {
    "sb3": ("stable_baselines3", "torch"),
    "sb3-contrib": ("sb3_contrib", "stable_baselines3", "torch"),
    "sbx": ("sbx-rl", "jax", "stable_baselines3"),
}


def schedule(value):
    """Turn "lin_0.001", a value that falls linearly to 0, into a function of the remaining progress."""
    if isinstance(value, str) and value.startswith("lin_"):
        start = float(value.removeprefix("lin_"))
        return lambda remaining: remaining * start
    return value


def main(task: dict) -> dict:
    """Train; return rows (step, seconds, mean return, mean length), evaluation, start time and versions.

    `start_seconds` count from `task["launched"]`, the clock time at which the process was started.
    """
    import numpy as np
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

    class Rows(BaseCallback):
        """Records the time every `row_steps` steps, and on request the episodes since the last row."""

        def __init__(self, row_steps, episodes):
            super().__init__()
            self.rows, self.row_steps, self.next, self.ended = [], row_steps, row_steps, []
            self.episodes = episodes

        def _on_training_start(self):
            self.started = time.perf_counter()

        def _on_step(self):
            if self.episodes:
                infos = self.locals["infos"]
                self.ended += [(i["episode"]["r"], i["episode"]["l"]) for i in infos if "episode" in i]
            if self.num_timesteps >= self.next:
                means = np.mean(self.ended, axis=0).tolist() if self.ended else [None, None]
                self.rows.append([self.num_timesteps, time.perf_counter() - self.started, *means])
                self.next += self.row_steps
                self.ended = []
            return True

    def create(num_envs, seed, kind=None):
        """Create environments; ALE games get the preprocessing of DQN and no sticky actions."""
        if not is_game:
            return make_vec_env(task["env_id"], num_envs, seed=seed, vec_env_cls=kind)
        game = {"frameskip": 1, "repeat_action_probability": 0.0}  # the preprocessing skips frames
        env_id = f"ale_py:{task['env_id']}"  # registers the games, in processes of their own as well
        env = make_atari_env(env_id, num_envs, seed=seed, vec_env_cls=kind, env_kwargs=game)
        return VecFrameStack(env, 4)

    is_game = task["env_id"].startswith("ALE/")
    options = {name: schedule(value) for name, value in task["options"].items()}
    kind = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[task["vec_env"]]
    env = create(task["num_envs"], task["seed"], kind)
    if "noise_std" in options:
        size = env.action_space.shape[-1]
        noise = NormalActionNoise(np.zeros(size), np.full(size, options.pop("noise_std")))
        options["action_noise"] = noise
    algorithm = getattr(importlib.import_module(MODULES[task["library"]]), task["algorithm"].upper())
    policy = "CnnPolicy" if is_game else "MlpPolicy"
    model = algorithm(policy, env, seed=task["seed"], device="cpu", verbose=0, **options)
    rows = Rows(task["row_steps"], task["eval_episodes"] > 0)
    start_seconds = time.time() - task["launched"]
    model.learn(task["total_timesteps"], callback=rows)
    evaluation = None
    if task["eval_episodes"]:
        eval_env = create(1, task["seed"] + 2**20)
        returns, _ = evaluate_policy(model, eval_env, task["eval_episodes"], return_episode_rewards=True)
        evaluation = float(np.mean(returns)), float(np.std(returns))
    return {
        "rows": rows.rows,
        "evaluation": evaluation,
        "start_seconds": start_seconds,
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES[task["library"]]),
    }


if __name__ == "__main__":
    print("peer: " + json.dumps(main(json.loads(sys.argv[1]))), flush=True)
