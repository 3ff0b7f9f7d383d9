"""The network side of the HTTP client that a broker makes for itself: names, addresses, connections, failures.

- `transport`: the client, over httpcore's connection pools. `backend`: how they connect and read. `resolver`: looks up
  host names in threads of its own. `addresses`: which addresses are public. `failures`: why a request got no response.

Modules here import `errors`, `caches`, `redaction` and the parts of `providers` that know no client. httpcore is
imported here only, and only when the first client is made, as httpx does.
"""
