"""What is timed. `python -m tests.benchmarks` prints the figures, beside those of the peers in the same run."""
