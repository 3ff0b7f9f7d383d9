"""The callers of the service: where their API key is found, and who they are."""
