"""Benchmarks: side by side with the alternative in one run, as ratios of medians; ``make bench``."""
