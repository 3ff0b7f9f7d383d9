"""What happens when the application starts: its lifespan opens the broker, and its routes are checked.

This folder reads applications of Starlette and FastAPI by their attributes, and imports neither FastAPI nor the broker.
"""
