"""Times of functions run in turn, so that all meet the same noise of the machine, and the floor of a row."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch

Call = Callable[[], object]

AT_LEAST = 5  # repetitions


class Figures(NamedTuple):
    """Seconds of one piece of work: by hand, ours, and the least that it can take here."""

    hand: float
    ours: float
    floor: float


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: What is measured.
        aim: Ratio of ours to by hand that is aimed at, or ``None``.
        floor: What the least time is made of, in words.
        figures: Given seconds to spend and a number of threads, measures.
    """

    name: str
    aim: float | None
    floor: str
    figures: Callable[[float, int], Figures]


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Inside, torch uses so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def times(functions: Sequence[Call], seconds: float, number: int = 1) -> list[list[float]]:
    """Return the seconds of each call of each function, called in turn, with ``number`` threads."""
    with threads(number):
        for function in (*functions, *functions):
            function()
        found: list[list[float]] = [[] for _ in functions]
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(found[0]) < AT_LEAST:
            for function, kept in zip(functions, found, strict=True):
                start = time.perf_counter()
                function()
                kept.append(time.perf_counter() - start)
    return found


def medians(functions: Sequence[Call], seconds: float, number: int = 1) -> list[float]:
    """Return the median seconds of one call of each."""
    return [statistics.median(kept) for kept in times(functions, seconds, number)]


def figures(hand: Call, ours: Call, least: Call, operators: int, seconds: float, number: int) -> Figures:
    """Measure both ways in turn with what cannot be avoided, of which the quickest call counts.

    Args:
        hand: One call of the way by hand.
        ours: One call of ours.
        least: What the work must do at least.
        operators: How many operators of torch it must call beside.
        seconds: How long.
        number: With how many threads.
    """
    by_hand, mine, floors = times([hand, ours, least], seconds, number)
    floor = min(*floors, *times([least], 0.1, number)[0]) + operators * operator(number)
    return Figures(statistics.median(by_hand), statistics.median(mine), floor)


@cache
def operator(number: int = 1) -> float:
    """Return the seconds that a call of an operator of torch takes on a tensor of 64 numbers: the quickest of many."""
    total, one = torch.zeros(64, dtype=torch.int64), torch.ones(64, dtype=torch.int64)

    def hundred():
        for _ in range(100):
            total.add_(one)

    return min(times([hundred], 0.2, number)[0]) / 100


def reading(*tensors: torch.Tensor) -> Call:
    """Return a function that reads as many bytes as ``tensors`` have, once: a ``sum`` of float32."""
    numbers = torch.ones(max(1, sum(tensor.nbytes for tensor in tensors) // 4))
    return numbers.sum


@cache
def bandwidth(number: int = 1, size: int = 1 << 28) -> float:
    """Return the bytes a second that a ``sum`` of a tensor larger than every cache reads."""
    return size / min(times([torch.ones(size // 4).sum], 0.5, number)[0])
