"""Deliberate faults of the package, to check that a test fails for each of them."""
