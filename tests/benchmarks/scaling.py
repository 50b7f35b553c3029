"""Run the exchange on 2, 4 and 8 processes of this machine and print one table for each: ``make scaling``."""

import os
import warnings
from argparse import ArgumentParser

import torch

from tests.benchmarks import exchange

warnings.simplefilter("ignore")


def main() -> None:
    """Print what is measured and on what, and the tables as Markdown."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8], help="numbers of processes")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds for each row")
    args = parser.parse_args()
    for ranks in args.ranks:
        print(f"\n{ranks} processes on {os.cpu_count()} cores, gloo on loopback, torch {torch.__version__}:\n")
        for line in exchange.table(ranks, args.seconds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
