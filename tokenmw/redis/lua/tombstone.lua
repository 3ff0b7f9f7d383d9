-- Write a tombstone: a version, and all versions below it, become invalid. It exists for as long as the token would
-- have, because absence alone may be an eviction, after which another process would upload the token again.
-- KEYS: token, lease, note, tombstone. ARGV: version, or '' for any token so far; version the caller knows; ms that the
-- token has left.
local value, left = mortal(KEYS[1])
local stored = version_of(value)
local ttl = tonumber(ARGV[3])
local version = tonumber(ARGV[1])
if not version then
  local now = redis.call('TIME')
  -- A token that is being fetched is included; its version may be above this server's time.
  local _, leased = lease_at(KEYS[2])
  version = math.max(now[1] * 1000000 + now[2], stored, tonumber(leased or 0), tonumber(ARGV[2]))
  ttl = math.max(ttl, left)
  redis.call('DEL', KEYS[3]) -- the caller wants the provider to be asked again, whatever it has answered
end
local dead = number_at(KEYS[4])
if value and stored > version and stored > dead then
  return {'newer', value, left, text(dead)}
end
redis.call('DEL', KEYS[1])
if dead > 0 then
  -- An older tombstone covers tokens that might still be uploaded: the new one covers them, too, for as long.
  version = math.max(version, dead)
  ttl = math.max(ttl, redis.call('PTTL', KEYS[4]))
end
redis.call('SET', KEYS[4], text(version), 'PX', text(ttl))
return {'tombstone', '', 0, text(version)}
