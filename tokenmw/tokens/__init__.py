"""The life of a token: held, renewed in one flight, shared under a lease, invalidated by comparison."""
