"""The ASGI side: the middleware, what one request carries, and the dependencies."""
