"""Tests that the README, the guides, the changelog and the security policy say what the package does."""
