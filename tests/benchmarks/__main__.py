"""Run every benchmark, print tables, and keep them in the docs: ``make bench``.

One process beside the same by hand, with one thread and with two; two processes beside torchmetrics' own sync.
"""

import logging
import sys
import warnings
from argparse import ArgumentParser

from tests.benchmarks import exchange, page
from tests.benchmarks.tables import COLUMNS, ROWS, cells, floors, machine

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.simplefilter("ignore")


def main() -> None:
    """Print the tables as Markdown; write them into the docs unless it is a try."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a try: fewer repetitions, and the docs stay as they are")
    quick = parser.parse_args().quick
    seconds = 0.1 if quick else 1.0
    parts = {"machine": machine()}
    print(f"{parts['machine']}\n\n{page.table(COLUMNS, [])}", flush=True)
    measured = []
    for row in ROWS:
        measured.append(cells(row, seconds))
        print(f"| {' | '.join(measured[-1])} |", flush=True)
    parts["one"] = page.table(COLUMNS, measured)
    parts["floors"] = page.table(("work", "floor"), floors(), words=2)
    parts["two"] = page.table(exchange.COLUMNS, exchange.rows(exchange.WORK, seconds))
    print(f"\n{parts['two']}\n\n{parts['floors']}", flush=True)
    if not quick:
        for name, text in parts.items():
            page.write(name, text)
        print(f"\nWritten to docs/{page.PAGE.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
