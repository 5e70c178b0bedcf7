"""Means over seeds and their 95 % bootstrap intervals."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats


def interval(values: Sequence[float], statistic: Callable = np.mean) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % percentile bootstrap interval over the first axis, the seeds; NaN for a single seed."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    result = stats.bootstrap(
        (values,), statistic, axis=0, n_resamples=5_000, method="percentile", batch=500, rng=0
    )
    return result.confidence_interval.low, result.confidence_interval.high


def interquartile_mean(values: Sequence[float], axis: int = 0) -> np.ndarray:
    """Return the mean without the lowest and the highest quarter."""
    return stats.trim_mean(values, 0.25, axis=axis)


def with_interval(values: Sequence[float], statistic: Callable = np.mean) -> str:
    """Return a statistic and its interval as text, such as "498.3 [495.0, 500.0]"."""
    values = np.asarray(values, float)
    low, high = interval(values, statistic)
    digits = 1 if np.abs(values).max() >= 20 else 2
    bounds = "" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{statistic(values, axis=0):.{digits}f}{bounds}"
