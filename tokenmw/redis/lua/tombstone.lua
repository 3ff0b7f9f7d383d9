-- Write a tombstone: a version, and all versions below it, become invalid. It exists for as long as the token would
-- have, because absence alone may be an eviction, after which another process would upload the token again.
-- KEYS: token, lease, note, tombstone. ARGV: version, or '' for any token so far; version the caller knows, which is
-- this server's time at least if there is no version; ms that the token has left; channel of the hints or ''.
-- Each reply ends with this server's time; 'clock': it rules out a version of the caller's, and nothing was written.
local known = tonumber(ARGV[2])
local version = tonumber(ARGV[1])
if not possible(math.max(known, version or 0)) then
  return {'clock', '', 0, '0', microseconds()}
end
local value, left, stored = token_at(KEYS[1])
local ttl = tonumber(ARGV[3])
if not version then
  -- A token that is being fetched is included; its version may be above this server's time. Not this server's present
  -- time: a server that was suspended executes this late, after the caller has fetched the next token without it.
  local _, leased = lease_at(KEYS[2], LEASE_LASTS)
  version = math.max(stored, tonumber(leased or 0), known)
  ttl = math.max(ttl, left)
  redis.call('DEL', KEYS[3]) -- the caller wants the provider to be asked again, whatever it has answered
end
local dead = number_at(KEYS[4])
if value and stored > version and stored > dead then
  return {'newer', value, left, text(dead), microseconds()}
end
redis.call('DEL', KEYS[1])
local news = version > dead -- after a loss of data every process writes what it knows
if dead > 0 then
  -- An older tombstone covers tokens that might still be uploaded: the new one covers them, too, for as long.
  version = math.max(version, dead)
  ttl = math.max(ttl, redis.call('PTTL', KEYS[4]))
end
redis.call('SET', KEYS[4], text(version), 'PX', text(math.min(ttl, TOKEN_LASTS)))
if news and ARGV[4] and ARGV[4] ~= '' then
  redis.pcall('PUBLISH', ARGV[4], string.sub(KEYS[1], #ARGV[4] - 4)) -- as in commit.lua
end
return {'tombstone', '', 0, text(version), microseconds()}
