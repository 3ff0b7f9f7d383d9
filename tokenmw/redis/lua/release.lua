-- Give the lease back, with a note of why there is no token. KEYS: token, lease, note, tombstone.
-- ARGV: owner, version, note or '', milliseconds the note lives.
local owner, leased = lease_at(KEYS[2])
if owner ~= ARGV[1] or leased ~= ARGV[2] then
  return 0
end
redis.call('DEL', KEYS[2])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
end
return 1
