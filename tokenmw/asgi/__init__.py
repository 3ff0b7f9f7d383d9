"""The ASGI side: the middleware, the state of one request, dependencies, and errors as responses.

It calls the broker, and nothing below imports it. It knows starlette and no other framework.
"""
