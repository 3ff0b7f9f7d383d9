-- Return a token newer than the one the caller knows; without one, take the lease, which is the right to fetch.
-- KEYS: token, lease, note, tombstone. ARGV: owner, lease in ms, version the caller knows.
-- Idempotent for its owner: called again after a lost reply, it returns the same lease.
local known = tonumber(ARGV[3])
local value, left = mortal(KEYS[1])
local stored = version_of(value)
local dead = number_at(KEYS[4])
if value and stored > known and stored > dead then
  return {'token', value, left}
end

local owner, leased, lease_left = lease_at(KEYS[2])
if owner == ARGV[1] then
  return {'lease', leased, 0}
elseif owner then
  return {'held', '', lease_left}
end

local note, note_left = mortal(KEYS[3])
if note then
  return {'note', note, note_left}
end

-- The fencing version of the token to come. It is above all versions that this server and the caller have seen, even if
-- the server's clock was set back or its data were lost. (A stored version is at most `known` or `dead` here.)
local now = redis.call('TIME')
local version = math.max(now[1] * 1000000 + now[2], dead + 1, known + 1)
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. text(version), 'PX', ARGV[2])
return {'lease', text(version), 0}
