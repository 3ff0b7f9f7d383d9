"""Errors as responses, under their public name; the code is in `tokenmw.asgi.problems`."""

from __future__ import annotations

from tokenmw.asgi.problems import close_code, problem_response

__all__ = ["close_code", "problem_response"]
