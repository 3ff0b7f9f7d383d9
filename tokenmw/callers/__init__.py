"""The callers of the service: `api_key` finds the API key of a connection, `authenticate` finds whose it is.

This folder knows starlette's `HTTPConnection`, and neither Redis nor providers.
"""
