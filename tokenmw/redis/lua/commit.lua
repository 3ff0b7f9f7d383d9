-- Store a token: under my lease, or without any lease if it is newer than what is there.
-- KEYS: token, lease, note, tombstone. ARGV: owner, version, value, milliseconds to live.
-- Called again with the same value (a reply was lost), it says 'stored' again.
local version = tonumber(ARGV[2])
local value, left = mortal(KEYS[1])
local stored = version_of(value)
local owner, leased, lease_left = lease_at(KEYS[2])
local mine = owner == ARGV[1] and leased == ARGV[2]
if mine then
  redis.call('DEL', KEYS[2])
end
-- The tombstone first: a token that was declared invalid meanwhile is not reported as stored.
if number_at(KEYS[4]) >= version then
  return {'dead', '', 0}
end
if value == ARGV[3] then
  return {'stored', '', 0}
end
-- At equal versions (two processes without Redis, one microsecond) the first one stays.
if value and stored >= version then
  return {'newer', value, left}
end
if owner and not mine then
  return {'held', '', lease_left}
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('DEL', KEYS[3])
return {'stored', '', 0}
