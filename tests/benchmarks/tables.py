"""The rows and columns of the table of one process, as ``make bench`` writes it."""

from tests.benchmarks import exchange, loops, page, work
from tests.benchmarks.measure import Row, bandwidth, operator

ROWS: list[Row] = [*work.ROWS, *loops.ROWS]

THREADS = (1, 2)

_OF_THREADS = ("by hand, ms", "metric_mixin, ms", "ratio", "floor, ms", "times the floor")

COLUMNS = ("one process", "aim", *_OF_THREADS, *(f"2 threads: {column}" for column in _OF_THREADS))


def cells(row: Row, seconds: float) -> list[str]:
    """Measure one row."""
    found = []
    for number in THREADS:
        hand, ours, floor = row.figures(seconds, number)
        found += [page.ms(hand), page.ms(ours), page.ratio(ours, hand), page.ms(floor), page.factor(ours, floor)]
    return [row.name, aim_of(row), *found]


def floors() -> list[tuple[str, str]]:
    """What each floor is made of, and the rows that have it."""
    of: dict[str, list[str]] = {}
    for row in ROWS:
        of.setdefault(row.floor, []).append(row.name)
    return [("; ".join(names), floor) for floor, names in of.items()]


def aim_of(row: Row | exchange.Work) -> str:
    """The aim as the table shows it."""
    return "" if row.aim is None else f"{row.aim:g}"


def machine() -> str:
    """What was measured with, and the two numbers that every floor is made of."""
    facts = [
        f"with {number} thread{'s' * (number > 1)} {bandwidth(number) / 1e9:.0f} GB/s and "
        f"{operator(number) * 1e6:.1f} us an operator"
        for number in THREADS
    ]
    return f"{page.environment()}. Memory is read, and a tiny operator called, {', '.join(facts)}."
