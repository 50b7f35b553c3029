"""The exchange on 2, 4 and 8 processes of this machine, as one table: ``make scaling``."""

import os
import warnings
from argparse import ArgumentParser

import torch

from tests.benchmarks import exchange

warnings.simplefilter("ignore")

NAMES = ("1 metric, 10 classes", "14 metrics, 10 classes", "50 metrics, 10 classes", "14 metrics, 1,000 classes")


def main() -> None:
    """Print what is measured and on what, and the table as Markdown."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8], help="numbers of processes")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds for each row, at least")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, gloo on loopback, torch {torch.__version__}\n\n{exchange.HEADER}")
    for work in exchange.WORK:
        for ranks in args.ranks:
            if work.name in NAMES or work.name.startswith("exact"):
                print(exchange.row(work, ranks, args.seconds), flush=True)


if __name__ == "__main__":
    main()
