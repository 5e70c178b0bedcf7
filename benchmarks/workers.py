"""Runs several jobs at a time, each in its own process: on this machine, or on a Ray cluster."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
import time
from typing import Any

from benchmarks import job, records

INTERVAL = 1.0  # seconds between two calls of `watch`


def reason(error: Exception) -> str:
    """Return why a job failed, on one line."""
    return str(getattr(error, "cause", None) or error).partition("\n")[0]  # Ray wraps it


def nothing() -> None:
    """Watch nothing."""


@contextmanager
def fan_out(workers: int, ray: tuple[str, ...] | None, retries: int) -> Iterator[Callable]:
    """Yield a function that runs jobs: `on_this_machine`, or `on_ray` if `ray` is not None.

    `ray` is empty, for this machine, or holds the address of a cluster; `retries` is the number of times that
    a job is repeated because its Ray worker was lost.
    """
    if ray is None:
        yield partial(on_this_machine, workers=workers)
        return
    with _ray_started(workers, next(iter(ray), None)):
        yield partial(on_ray, retries=retries)


def on_this_machine(
    run: Callable, jobs: list, workers: int, watch: Callable[[], None] = nothing, saves: bool = False
) -> Iterator[tuple[Any, Callable]]:
    """Call `run(job)` for several jobs at a time; yield each as it finishes, with a function for its result.

    `watch` is called every second while jobs are running. If it raises an exception, or if this generator is
    closed or interrupted, the running scripts are ended first; with `saves`, after they have saved.
    """
    processes: set = set()
    # threads suffice: each run is a process
    with ThreadPoolExecutor(workers, initializer=job.add_processes_to, initargs=(processes,)) as pool:
        futures = {pool.submit(run, work): work for work in jobs}
        running = set(futures)
        try:
            while running:
                finished, running = wait(running, INTERVAL, FIRST_COMPLETED)
                for future in finished:
                    yield futures[future], future.result
                if running:
                    watch()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            told: set = set()
            while not all(future.done() for future in futures):  # a script may still be starting
                try:
                    job.terminate(processes.copy(), told if saves else set())
                    time.sleep(0.1)
                except KeyboardInterrupt:  # a second one: do not wait until they have saved
                    told.clear()
            raise


def on_ray(
    run: Callable, jobs: list, retries: int, watch: Callable[[], None] = nothing, saves: bool = False
) -> Iterator[tuple[Any, Callable]]:
    """Do the same with a Ray task of one CPU for each job."""
    import ray

    @ray.remote(num_cpus=1, max_retries=retries)
    def task(work: Any, stop: Any) -> Any:
        def watch_driver() -> None:
            if ray.get(stop.is_set.remote()):
                raise InterruptedError("the run was ended")

        watch_driver()
        ((_, result),) = on_this_machine(run, [work], 1, watch_driver, saves)
        return result()

    # a flag, because ray.cancel leaves some scripts running; it may have to move to another machine
    stop = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Flag).remote()
    futures = {task.remote(work, stop): work for work in jobs}
    running = list(futures)
    try:
        while running:
            finished, running = ray.wait(running, timeout=INTERVAL)
            for future in finished:
                yield futures[future], partial(ray.get, future)
            if running:
                watch()
    except BaseException:
        stop.set.remote()
        if running:
            ray.wait(running, num_returns=len(running), timeout=60.0)
        raise


class Flag:
    """Tells the tasks of `on_ray` to end, as an actor."""

    def __init__(self) -> None:
        self.value = False

    def set(self) -> None:
        """Set the flag."""
        self.value = True

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self.value


@contextmanager
def _ray_started(workers: int, address: str | None) -> Iterator[None]:
    import ray

    excluded = [".git", ".venv", "build", "runs", "wandb", "videos", "benchmarks/results"]
    environment = {"working_dir": str(records.ROOT), "excludes": excluded}
    environment |= {"env_vars": {records.COMMIT: records.commit()}}
    ray.init(
        address=address or "local",
        num_cpus=None if address else workers,
        runtime_env=environment,
        include_dashboard=None if address else False,
        log_to_driver=False,
    )
    job.exit_when_told()  # Ray has set its own handler
    try:
        yield
    except BaseException:
        job.terminate_children()
        raise
    finally:
        ray.shutdown()
