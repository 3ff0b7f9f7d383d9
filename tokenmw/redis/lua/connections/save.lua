-- Store a connection if its version is as expected. KEYS: row, index.
-- ARGV: digest, expected version, new version, value, app, subject. Returns 1 if it was stored, else 0.
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[2] then
  return 0
end
-- First the index: a name in it without a row is skipped, but a row without a name would never be found.
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'value', ARGV[4], 'app', ARGV[5], 'subject', ARGV[6])
return 1
