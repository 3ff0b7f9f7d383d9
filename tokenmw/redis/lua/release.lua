-- Release the caller's lease, and store a note that says why there is no token. KEYS: token, lease, note, tombstone.
-- ARGV: owner, version, note or '', ms for which the note exists.
local owner, leased = lease_at(KEYS[2], LEASE_LASTS)
if owner ~= ARGV[1] or leased ~= ARGV[2] then
  return 0
end
redis.call('DEL', KEYS[2])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
end
return 1
