"""Medians of two functions, run in turn, so that both meet the same noise of the machine."""

import statistics
import time
from collections.abc import Callable

import torch


def medians(first: Callable[[], object], second: Callable[[], object], seconds: float = 3.0) -> tuple[float, float]:
    """Return the median time of one call of each, in seconds, with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for function in (first, second) * 2:
            function()
        times: tuple[list[float], list[float]] = ([], [])
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times[0]) < 5:
            for function, kept in zip((first, second), times, strict=True):
                start = time.perf_counter()
                function()
                kept.append(time.perf_counter() - start)
        return statistics.median(times[0]), statistics.median(times[1])
    finally:
        torch.set_num_threads(threads)
