"""The layer that is shared by all workers and machines: Redis, with every reason why it may be out."""
