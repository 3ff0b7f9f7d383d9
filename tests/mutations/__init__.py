"""Faults put into the package on purpose, to see that a test notices each of them."""
