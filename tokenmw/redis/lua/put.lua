-- Store a session id in place of any other, and announce it. KEYS: session; the key's last reset, where resets are kept.
-- ARGV: id; ms to live; channel of the hints, or ''; what is kept of the reset, and its ms to live.
if KEYS[2] then
  redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' then
  redis.pcall('PUBLISH', ARGV[3], string.sub(KEYS[1], #ARGV[3] - 4)) -- the key without what precedes all keys
end
return 1
