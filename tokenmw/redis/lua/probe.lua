-- Check that this server takes writes: a full or read-only one answers PING. KEYS: the probe's key.
redis.call('SET', KEYS[1], '1', 'PX', 1000)
return 1
