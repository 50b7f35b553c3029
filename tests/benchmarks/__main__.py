"""Run every benchmark and print one table: what was done, by hand in ms, ours in ms, ours / by hand."""

import logging
import warnings

from tests.benchmarks import measure, work

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.simplefilter("ignore")


def main() -> None:
    """Print the table as Markdown."""
    print("| work | by hand, ms | metric_mixin, ms | ratio |\n| --- | ---: | ---: | ---: |")
    for name, by_hand, ours in work.ALL:
        hand, mine = measure.medians(by_hand(), ours())
        print(f"| {name} | {hand * 1e3:.3f} | {mine * 1e3:.3f} | {mine / hand:.2f} |", flush=True)


if __name__ == "__main__":
    main()
