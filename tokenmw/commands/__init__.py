"""The commands that check the broker of a program: `tokenmw check`.

They use the parts of an open broker, and import nothing of ASGI. `target` finds the broker, `report` writes what was
found.
"""
