"""Errors as responses: the public import path of `tokenmw.asgi.problems`."""

from __future__ import annotations

from tokenmw.asgi.problems import add_problem_handlers, close_code, problem_response

__all__ = ["add_problem_handlers", "close_code", "problem_response"]
