"""Time of the compiled updates of DDPG, TD3 and SAC, compared with the time of their matrix products alone.

    python benchmarks/arithmetic.py

Counts the floating-point operations of the matrix products in an update and measures, in the same process,
the update and the rate of a plain 256 × 256 matrix product. The ratio of the update's time to operations /
rate shows the cost of everything else: Adam, noise, target networks, overhead. Use an otherwise idle machine.
"""

import importlib
import statistics
import time

from common.replay_buffer import Transitions
import gymnasium as gym
import numpy as np
import tensorflow as tf

from benchmarks import records
from benchmarks.options import parse
from benchmarks.settings import PAIRS, Comparison, command_line

REPEATS = 9  # measurements; the median counts


def operations(script: str, agent, config) -> float:
    """Return the floating-point operations of the matrix products in one update, on average.

    The forward pass multiplies the batch by each matrix once. The backward pass does so once for the gradient
    of the matrix and once for that of its input, unless the input is data.
    """
    actor = matrix_sizes(agent.policy.parameters if script == "sac" else agent.actor.trainable_variables)
    critic = matrix_sizes(agent.critic.trainable_variables)
    critics = 1 if script == "ddpg" else 2
    products = sum(actor) + critics * sum(critic)  # the next action and target critics
    products += critics * (3 * sum(critic) - critic[0])  # critics, forward and backward
    critics_of_actor = 2 if script == "sac" else 1  # without gradients of their matrices
    actor_update = 3 * sum(actor) - actor[0] + critics_of_actor * 2 * sum(critic)
    products += actor_update / getattr(config, "policy_frequency", 1)
    return 2.0 * config.batch_size * products


def matrix_sizes(variables) -> list[int]:
    """Return the number of entries of each matrix among some variables, in their order."""
    return [int(np.prod(v.shape)) for v in variables if len(v.shape) == 2]


def seconds(call) -> float:
    """Return the median time of a compiled function that returns a tensor."""
    call()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call().numpy()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def product_rate(size: int = 256, products: int = 500) -> float:
    """Return the floating-point operations per second of a plain matrix product, compiled, in a loop."""
    matrix = tf.random.normal((size, size)) / size**0.5

    @tf.function(jit_compile=True)
    def multiply():
        x = matrix
        for _ in tf.range(products):
            x = x @ matrix
        return x

    return products * 2 * size**3 / seconds(multiply)


def measure(pair: Comparison, rate: float) -> dict:
    """Return a row of arithmetic.csv."""
    config = parse(pair.script, f"--env-id {pair.env_id} {command_line(pair.ours)}")
    with gym.make(pair.env_id) as env:
        spaces = env.observation_space, env.action_space
    agent = importlib.import_module(f"{pair.script}.{pair.script}").Agent(*spaces, config)
    shape = config.gradient_steps, config.batch_size
    random = tf.random.Generator.from_seed(0)
    batches = Transitions(
        observations=random.normal((*shape, *spaces[0].shape)),
        actions=random.uniform((*shape, *spaces[1].shape), -1.0, 1.0),
        rewards=random.normal(shape),
        next_observations=random.normal((*shape, *spaces[0].shape)),
        terminated=tf.zeros(shape, tf.bool),
    )
    update = seconds(lambda: agent.update(batches)["td_loss"]) / config.gradient_steps
    flops = operations(pair.script, agent, config)
    row = {"script": pair.script, "env_id": pair.env_id, "update_ms": round(1e3 * update, 3)}
    row |= {"megaflop": round(flops / 1e6), "product_gigaflop_per_second": round(rate / 1e9, 1)}
    row |= {"ratio": round(update * rate / flops, 2)}
    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row | records.origin()


def main() -> None:
    """Write arithmetic.csv: one row per script."""
    rate = product_rate()
    rows = [measure(pair, rate) for pair in PAIRS if pair.script in ("ddpg", "td3", "sac")]
    records.write_csv(records.RESULTS / "arithmetic.csv", rows)


if __name__ == "__main__":
    main()
