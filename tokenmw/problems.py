"""Errors as responses: the public import path of `tokenmw.asgi.problems`."""

from __future__ import annotations

from tokenmw.asgi.problems import close_code, problem_response

__all__ = ["close_code", "problem_response"]
