"""Fuzzing of all code that reads data from outside: `python -m tests.fuzz`."""
