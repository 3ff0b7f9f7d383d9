"""All parts of a broker in one event loop, built whole over data that outlives the loop.

`settings` are the broker's checked options. `data` is what must survive from one event loop to the next. A `Runtime` is
built from both. Two may overlap, one closing and one open, and need no special rule: a runtime closes only what it has
built. `snapshot` is the status. This folder uses everything below the broker, and knows no web framework.
"""
