"""What all workers and machines share: tokens, session ids and leases in Redis.

`client` and `background_connect` make the Redis client; `name_lookup` resolves its host. `guard` runs commands against
one server: it bounds them (`deadline`), opens the circuit (`breaker`) and probes until the server recovers. `errors`
classifies failures, `failure_log` logs them, `advice` says how to fix them, and `acl` has the rights that are needed.
`servers` finds the server of a key, and `connection` is what the stores use. `token_store` and `session_store` run the
Lua scripts (`scripts`, `lua/`) on keys (`keys`) and values (`sealing`). `epoch` notices that a server has lost data.

Only this folder imports redis, and only `sealing` cryptography. It imports `errors`, `clock`, `redaction`, `limits`,
`values` and `observe`; it knows nothing of token entries, session caches or requests.
"""
