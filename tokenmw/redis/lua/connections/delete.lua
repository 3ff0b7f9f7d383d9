-- Delete a connection if its version is as expected. KEYS: row, index. ARGV: digest, expected version.
-- Returns 1 if it was deleted, else 0.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
