"""One session id for each API key, the same on all instances, until it has been idle for `session_ttl`."""
