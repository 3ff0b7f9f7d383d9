-- Find out whether this server takes writes: PING succeeds on a full and on a read-only one. KEYS: any of ours.
redis.call('SET', KEYS[1], '1', 'PX', 1000)
return 1
