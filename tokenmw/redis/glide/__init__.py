"""A client of valkey-glide as the `redis` option: it has a redis-py client's methods, as far as this package uses them.

`given` recognizes what a program passed; `adapter` opens a client of its own from that configuration and runs commands;
`errors` turns Glide's errors into redis-py's, by which `redis.errors` classifies them; `subscriber` makes the connection
on which hints arrive, with redis-py.

Only this folder imports glide, and only if a program has passed an object of it.
"""
