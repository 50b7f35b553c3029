"""Run every benchmark and print tables: one process beside the same by hand, two beside torchmetrics' own sync."""

import logging
import warnings

from tests.benchmarks import exchange, loops, measure, work

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.simplefilter("ignore")


def main() -> None:
    """Print the tables as Markdown."""
    print("| work | by hand, ms | metric_mixin, ms | ratio | aim |\n| --- | ---: | ---: | ---: | ---: |")
    for name, aim, by_hand, ours in work.ALL:
        hand, mine = measure.medians(by_hand(), ours())
        cells = f"{hand * 1e3:.3f} | {mine * 1e3:.3f} | {mine / hand:.3f} | {'' if aim is None else f'{aim:.2f}'}"
        print(f"| {name} | {cells} |", flush=True)
    print(f"\nInside of Lightning's loops:\n\n{loops.HEADER}")
    for line in loops.rows():
        print(line, flush=True)
    print("\nThe exchange between two ranks, beside torchmetrics' own:\n")
    print(exchange.HEADER)
    for one in exchange.WORK:
        print(exchange.row(one, world_size=2, seconds=4.0), flush=True)


if __name__ == "__main__":
    main()
