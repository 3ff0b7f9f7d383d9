"""One session id for each API key, the same on all instances, until it has been idle for `session_ttl`.

`cache` is data that outlives an event loop. `manager` returns ids to requests, `first_sight` looks up new keys in
Redis, `sync` sends touches and uploads there, `derive` makes ids without Redis, `rate_limit` bounds how many new
sessions a process writes. This folder uses `redis`, and knows no web framework.
"""
