"""Which files of the package a request passes, and how often it moves from one to another."""
