-- Return a token newer than the one the caller knows; without one, take the lease, which is the right to fetch.
-- KEYS: token, lease, note, tombstone. ARGV: owner, lease in ms, version the caller knows, 1 to ignore a note.
-- Idempotent for its owner: called again after a lost reply, it returns the same lease.
-- Each reply ends with this server's time; 'clock': the caller knows a version that this time rules out.
local known = tonumber(ARGV[3])
if not possible(known) then
  return {'clock', '', 0, microseconds()}
end
local value, left, stored = token_at(KEYS[1])
local dead = number_at(KEYS[4])
if value and stored > known and stored > dead then
  return {'token', value, left, microseconds()}
end

-- A lease of up to a minute may be of an instance with longer ones, as while that option is changed. A longer one than
-- that and than the caller's own was set by somebody else.
local owner, leased, lease_left = lease_at(KEYS[2], math.max(tonumber(ARGV[2]), 60000))
if owner == ARGV[1] then
  return {'lease', leased, 0, microseconds()}
elseif owner then
  return {'held', '', lease_left, microseconds()}
end

local note, note_left = mortal(KEYS[3], LONGEST_TEXT, NOTE_LASTS)
if note and ARGV[4] ~= '1' then
  return {'note', note, note_left, microseconds()}
end

-- The fencing version of the token to come. It is above all versions that this server and the caller have seen, even if
-- the server's clock was set back or its data were lost. (A stored version is at most `known` or `dead` here.)
local version = math.max(microseconds(), dead + 1, known + 1)
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. text(version), 'PX', ARGV[2])
return {'lease', text(version), 0, microseconds()}
