"""Connections: tokens of users."""
