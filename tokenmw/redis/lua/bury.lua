-- Declare a version, and all before it, invalid. The tombstone stays as long as the token would have lived, because
-- absence alone may be an eviction, and then another process would offer the token again.
-- KEYS: token, lease, note, tombstone. ARGV: version, or '' for whatever is there; version I know; ms it would live.
local value, left = mortal(KEYS[1])
local stored = version_of(value)
local life = tonumber(ARGV[3])
local version = tonumber(ARGV[1])
if not version then
  local now = redis.call('TIME')
  local _, leased = lease_at(KEYS[2]) -- what is being asked for counts; it may be above this server's time
  version = math.max(now[1] * 1000000 + now[2], stored, tonumber(leased or 0), tonumber(ARGV[2]))
  life = math.max(life, left)
  redis.call('DEL', KEYS[3]) -- who says "whatever is there" wants the provider asked again
end
local dead = number_at(KEYS[4])
if value and stored > version and stored > dead then
  return {'newer', value, left, text(dead)}
end
redis.call('DEL', KEYS[1])
if dead > 0 then
  -- An older tombstone stands for tokens that might still be offered: together they stay as long as either would.
  version = math.max(version, dead)
  life = math.max(life, redis.call('PTTL', KEYS[4]))
end
redis.call('SET', KEYS[4], text(version), 'PX', text(life))
return {'buried', '', 0, text(version)}
