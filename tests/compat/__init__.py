"""The version before the restructuring and the one in this tree, side by side on one Redis."""
