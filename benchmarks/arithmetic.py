"""How far the compiled updates of DDPG and TD3 are from the machine's arithmetic.

    python benchmarks/arithmetic.py

Counts the floating-point operations of the matrix products in an update, measures the rate of a plain matrix
product (256 × 256 times 256 × 256, compiled, in a loop) in the same process, and times the update: the ratio
of its time to operations / rate says what everything else costs, Adam, noise, target networks and overhead.
Measure on a machine that does nothing else.
"""

from dataclasses import dataclass
import importlib
from pathlib import Path
import shlex
import statistics
import time

from common.envs import make_env
from common.options import parse
from common.replay_buffer import Transitions
import keras
import numpy as np
import tensorflow as tf
import tyro

from benchmarks import job
from benchmarks.settings import SPEEDS


@dataclass
class Options:
    """What to measure, and how often."""

    repeats: int = 9
    """Measurements of each, in turn; the medians count."""
    results: Path = job.RESULTS
    """Folder for arithmetic.csv."""


def weights(network: keras.Model) -> tuple[int, int]:
    """Return the entries of all weight matrices of a network, and of the first."""
    sizes = [int(np.prod(v.shape)) for v in network.trainable_variables if len(v.shape) == 2]
    return sum(sizes), sizes[0]


def operations(script: str, agent, config) -> float:
    """Return the floating-point operations of the matrix products in one update, on average.

    A product of the batch with a matrix is needed forward; backward once for the matrix itself and once for
    its input, unless that is data.
    """
    actor, actor_first = weights(agent.actor)
    critic, critic_first = weights(agent.critic)
    critics = 2 if script == "td3" else 1
    entries = actor + critics * critic  # target actor and target critics
    entries += critics * (3 * critic - critic_first)  # critics forward and backward
    of_actor = 3 * actor - actor_first + 2 * critic  # actor both ways; the critic, but for its matrices
    entries += of_actor / getattr(config, "policy_frequency", 1)
    return 2.0 * config.batch_size * entries


def seconds(call, repeats: int) -> list[float]:
    """Time calls of a compiled function that returns a tensor."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call().numpy()
        times.append(time.perf_counter() - started)
    return times


def main(options: Options) -> None:
    """Write arithmetic.csv: a row a script."""
    size, products = 256, 500
    matrix = tf.random.normal((size, size)) / size**0.5

    @tf.function(jit_compile=True)
    def multiply():
        x = matrix
        for _ in tf.range(products):
            x = x @ matrix
        return x

    rate = products * 2 * size**3 / statistics.median(seconds(multiply, options.repeats))
    rows = []
    for speed in SPEEDS:
        if speed.script not in ("ddpg", "td3"):
            continue
        module = importlib.import_module(f"{speed.script}.{speed.script}")
        config = parse(module.Config, shlex.split(f"--env-id {speed.env_id} {speed.options}"))
        with make_env(speed.env_id, speed.script) as env:
            spaces = env.observation_space, env.action_space
            actions = np.stack([env.action_space.sample() for _ in range(config.batch_size)])
        agent = module.Agent(*spaces, config)
        shape = config.gradient_steps, config.batch_size
        rng = np.random.default_rng(0)
        batches = Transitions(
            observations=rng.normal(size=(*shape, *spaces[0].shape)).astype(np.float32),
            actions=np.broadcast_to(actions, (*shape, *spaces[1].shape)),
            rewards=rng.normal(size=shape).astype(np.float32),
            next_observations=rng.normal(size=(*shape, *spaces[0].shape)).astype(np.float32),
            terminated=np.zeros(shape, bool),
        )
        batches = Transitions(*map(tf.constant, batches))
        one = seconds(lambda: agent.update(batches)["td_loss"], options.repeats)  # noqa: B023
        update = statistics.median(one) / config.gradient_steps
        flops = operations(speed.script, agent, config)
        rows.append(
            {
                "script": speed.script,
                "env_id": speed.env_id,
                "update_ms": round(1e3 * update, 3),
                "megaflop": round(flops / 1e6),
                "product_gigaflop_per_second": round(rate / 1e9, 1),
                "ratio": round(update * rate / flops, 2),
                "versions": job.versions(),
                "machine": job.machine(),
                "date": job.today(),
            }
        )
        print(", ".join(f"{name} {rows[-1][name]}" for name in list(rows[-1])[:6]), flush=True)
    job.write_csv(options.results / "arithmetic.csv", rows)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
