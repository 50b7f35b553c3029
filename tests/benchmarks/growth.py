"""How cost grows with rows, classes, metrics and keys, ours beside the same by hand, as tables: ``make growth``."""

import logging
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torchmetrics import MetricCollection

from metric_mixin import StageMetrics
from tests.benchmarks import exchange, loops, page
from tests.benchmarks.measure import medians
from tests.benchmarks.work import ByHand, Ours, classes_of, per_class, ten, without_matrix

COLUMNS = ("by hand, ms", "metric_mixin, ms", "ratio")

ROWS = (64, 256, 1024, 4096, 16_384, 65_536)
CLASSES = (10, 100, 1000, 10_000)
METRICS = (1, 2, 5, 10, 20, 50)
KEYS = (10, 100, 1000, 10_000)


def first(count: int) -> dict[str, Any]:
    """So many metrics of 10 classes, scores in several averages first."""
    return dict(islice(exchange.fifty(10).items(), count))


def _update(metrics: Any, rows: int, classes: int, seconds: float) -> list[float]:
    torch.manual_seed(0)
    hand, ours, batch = MetricCollection(metrics()), StageMetrics(metrics()), classes_of(rows, classes)
    return medians([lambda: hand.update(*batch), lambda: ours.update(*batch)], seconds)


def _end(keys: int, seconds: float) -> list[float]:
    ways = [partial(ByHand, keys, per_class), partial(Ours, keys, per_class)]
    return loops.medians(ways, 1, seconds, 1, fits=False)["end"]


TABLES = (
    ('update of "ten", 10 classes: rows', ROWS, lambda n, s: _update(partial(ten, 10), n, 10, s)),
    (
        "update of eight scores without a matrix, 256 rows: classes", CLASSES,
        lambda n, s: _update(partial(without_matrix, n), 256, n, s),
    ),
    ("update, 256 rows of 10 classes: metrics", METRICS, lambda n, s: _update(partial(first, n), 256, 10, s)),
    ("epoch end without a logger: keys", KEYS, _end),
)  # fmt: skip
"""Of each table: what grows, how far, and what measures it."""


def tables(seconds: float) -> Iterator[str]:
    """Measure table by table."""
    for what, numbers, measured in TABLES:
        rows = []
        for number in numbers:
            hand, ours = measured(number, seconds)
            rows.append([f"{number:,}", page.ms(hand), page.ms(ours), page.ratio(ours, hand)])
        yield page.table([what, *COLUMNS], rows, words=0)


def main() -> None:
    """Print the tables, and keep them in the docs unless it is a try."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a try: fewer repetitions, and the docs stay as they are")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    parts = [f"{page.environment()}; one thread."]
    print(parts[0], flush=True)
    for table in tables(0.05 if args.quick else 1.0):
        parts.append(table)
        print(f"\n{table}", flush=True)
    if not args.quick:
        page.write("growth", "\n\n".join(parts))
        print(f"\nWritten to docs/{page.PAGE.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
