"""A demonstration on one machine: two workers of one service, a Valkey server between them, a token server."""
