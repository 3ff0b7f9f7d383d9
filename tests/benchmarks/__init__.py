"""Benchmarks. `python -m tests.benchmarks` prints the figures beside those of other libraries in the same run."""
