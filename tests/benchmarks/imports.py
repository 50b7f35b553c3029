"""What ``import metric_mixin`` takes after ``import lightning.pytorch``, each time in a fresh process.

Wall time, and the time that the process itself had the CPU, which other work on the machine changes less. The first
process of all is left out: it compiles the files, as pip does when it installs them, and reads them from the disk.
"""

import os
import subprocess
import sys
from statistics import median

RUNS = 15
CODE = """
import time, warnings
warnings.simplefilter("ignore")
start = time.perf_counter()
import lightning.pytorch
lightning_took = time.perf_counter() - start
start, cpu = time.perf_counter(), time.process_time()
import metric_mixin
print(lightning_took, time.perf_counter() - start, time.process_time() - cpu)
"""


def once() -> list[float]:
    """Seconds: of Lightning; of metric_mixin after it; the same by the CPU."""
    compiling = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=compiling)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Print a table of medians, and of the smallest and largest."""
    once()
    names = ("`import lightning.pytorch`", "`import metric_mixin` after it", "the same, CPU time")
    print(f"{RUNS} processes, ms\n\n| what | median | least | most |\n| --- | ---: | ---: | ---: |")
    for name, took in zip(names, zip(*(once() for _ in range(RUNS)), strict=True), strict=True):
        print(f"| {name} | {median(took) * 1e3:.1f} | {min(took) * 1e3:.1f} | {max(took) * 1e3:.1f} |")


if __name__ == "__main__":
    main()
