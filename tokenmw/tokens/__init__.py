"""The core: one token for each credential, shared by all processes.

1. Each credential has one `TokenEntry`: the current token, the last failure, the highest version known to be invalid.
   Fresh: return it. Aging: return it and start one background refresh. Expired: wait for the refresh. (`manager`)
2. A refresh is single-flight per process and owned by the broker, not by a request. (`manager`, `singleflight`)
3. With Redis, `acquire` returns a newer token, or a lease with a fencing version, or "busy", or a failure note. The
   holder asks the provider once, and commits only under its lease and above any tombstone. The others poll the token.
   (`refresh`, `leased_refresh`, `fetch`)
4. Without Redis: ask alone and mark the token unshared; housekeeping uploads it later; the higher version wins.
   (`refresh`, `sync`)
5. Rejected by an API: if the token is still current and older than 5 s, drop it, write a tombstone and remember its
   digest; repeated reports back off. (`sync`, `cache`)
6. A failure is "not before T", with exponential backoff and jitter while a valid token is served, else with a probe
   every few seconds. It is shared with the other processes as a failure note, that of a network fault for seconds.
   (`failures`, `backoff`)
7. A provider whose own request needs another credential's token gets it like any request. (`nested`)
8. What fails for a client whose tokens are made from its callers' own fails for all of them: few requests find out.
   (`clients`)

`entry` and `cache` are data that outlives an event loop; `Refresher`, `TokenSync` and `TokenManager` belong to one.
This folder uses `redis` through the `TokenStore` protocol (`store`), and knows no web framework.
"""
