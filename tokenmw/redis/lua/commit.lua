-- Store a token: under the caller's lease, or without any lease if it is newer than the stored one.
-- KEYS: token, lease, note, tombstone. ARGV: owner, version, value, ms to live, ms since the token was requested,
-- channel of the hints or ''.
-- Idempotent for the same value: called again after a lost reply, it returns 'stored' again.
-- Each reply ends with this server's time; 'clock': the version does not agree with it, and nothing was stored.
local version = tonumber(ARGV[2])
local value, left, stored = token_at(KEYS[1])
local owner, leased, lease_left = lease_at(KEYS[2], LEASE_LASTS)
local mine = owner == ARGV[1] and leased == ARGV[2]
if mine then
  redis.call('DEL', KEYS[2])
end
-- Readers take the version for the time of the request. A later version than that is harmless for up to a day.
local requested = ARGV[5] and microseconds() - ARGV[5] * 1000 or 0
if not possible(version) or version < requested - BEHIND then
  return {'clock', '', 0, microseconds()}
end
-- The tombstone is checked first: a token that has become invalid must not be reported as stored.
local dead = number_at(KEYS[4])
if dead >= version then
  return {'tombstone', '', 0, microseconds()}
end
if value == ARGV[3] then
  return {'stored', '', 0, microseconds()}
end
-- Of two tokens with the same version (fetched without Redis in the same microsecond) the first one stays.
if value and stored >= version then
  return {'newer', value, left, microseconds()}
end
if owner and not mine then
  return {'held', '', lease_left, microseconds()}
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('DEL', KEYS[3])
if dead == 0 then
  redis.call('DEL', KEYS[4]) -- garbage, which might count later
end
-- A hint is the key without what precedes all keys. Where an ACL forbids the channel, the token is stored all the same.
if ARGV[6] and ARGV[6] ~= '' then
  redis.pcall('PUBLISH', ARGV[6], string.sub(KEYS[1], #ARGV[6] - 4))
end
return {'stored', '', 0, microseconds()}
