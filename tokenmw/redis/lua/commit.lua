-- Store a token: under the caller's lease, or without any lease if it is newer than the stored one.
-- KEYS: token, lease, note, tombstone. ARGV: owner, version, value, ms to live.
-- Idempotent for the same value: called again after a lost reply, it returns 'stored' again.
local version = tonumber(ARGV[2])
local value, left = mortal(KEYS[1])
local stored = version_of(value)
local owner, leased, lease_left = lease_at(KEYS[2])
local mine = owner == ARGV[1] and leased == ARGV[2]
if mine then
  redis.call('DEL', KEYS[2])
end
-- The tombstone is checked first: a token that has become invalid must not be reported as stored.
if number_at(KEYS[4]) >= version then
  return {'tombstone', '', 0}
end
if value == ARGV[3] then
  return {'stored', '', 0}
end
-- Of two tokens with the same version (fetched without Redis in the same microsecond) the first one stays.
if value and stored >= version then
  return {'newer', value, left}
end
if owner and not mine then
  return {'held', '', lease_left}
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('DEL', KEYS[3])
return {'stored', '', 0}
