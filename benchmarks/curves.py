"""Learning curves: reading metrics.csv and evaluations.csv, time to threshold, speed, thinning."""

import csv
from pathlib import Path

WINDOW = 20  # training episodes whose mean return is compared with the solved threshold
POINTS = 50  # of a thinned learning curve


def read_metrics(path: Path) -> list[tuple]:
    """Read rows (step, seconds, mean return, mean length) of metrics.csv; empty cells become None.

    The means are over the episodes that ended since the last row.
    """
    columns = ("global_step", "seconds", "episodic_return", "episodic_length")
    with path.open(newline="") as file:
        rows = [
            [float(row[column]) if row[column] else None for column in columns]
            for row in csv.DictReader(file)
        ]
    return [(int(step), *others) for step, *others in rows]


def read_evaluations(path: Path) -> list[tuple[int, float, float]]:
    """Read rows (step, mean return, standard deviation) of evaluations.csv; without a file there are none.

    The run may still be writing: a last line that is not complete is left out.
    """
    if not path.exists():
        return []
    text = path.read_text()
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [(int(row["global_step"]), float(row["mean_return"]), float(row["std_return"])) for row in rows]


def first_solved(rows: list, threshold: float, window: int = WINDOW) -> tuple[int, float] | None:
    """Return steps and seconds of the first row at which the training return reaches the threshold.

    The mean return of the last `window` training episodes must be at least `threshold`. Only whole rows
    count. A row stands for about n / mean length episodes, with the n steps since the last row that has any.
    """
    recent, last_step = [], 0
    for step, seconds, mean_return, mean_length in rows:
        if mean_return is not None:
            recent.append((max(1.0, (step - last_step) / max(mean_length, 1.0)), mean_return))
            last_step = step
        while recent and sum(count for count, _ in recent[1:]) >= window:
            recent.pop(0)
        episodes = sum(count for count, _ in recent)
        if episodes >= window and sum(count * value for count, value in recent) / episodes >= threshold:
            return step, seconds
    return None


def steps_per_second(rows: list, warm_up: int) -> float:
    """Return the speed from the first row at or after `warm_up` steps to the last row."""
    start = next(row for row in rows if row[0] >= warm_up)
    return (rows[-1][0] - start[0]) / (rows[-1][1] - start[1])


def thin(rows: list, seed: int, start_seconds: float) -> list[dict]:
    """Return a curve of at most `POINTS` points: mean training return over equal intervals of steps.

    Seconds count from the start of the process, `start_seconds` before training.
    """
    interval = max(1, -(-rows[-1][0] // POINTS)) if rows else 1
    points: dict[int, list] = {}
    for step, seconds, mean_return, _ in rows:
        if mean_return is not None:
            points.setdefault((step - 1) // interval, []).append((step, seconds, mean_return))
    return [
        {
            "seed": seed,
            "global_step": group[-1][0],
            "seconds": round(start_seconds + group[-1][1], 2),
            "episodic_return": f"{sum(point[2] for point in group) / len(group):.4g}",
        }
        for group in points.values()
    ]
