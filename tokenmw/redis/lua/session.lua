-- Get the session id of an API key, or store the given one if there is none, and restart its TTL: one round trip.
-- KEYS: session; the key's last reset, where resets are kept. ARGV: candidate, or '' to store nothing; ms to live;
-- 'lengthen' if the TTL must not become shorter, else ''; the time in ms after which the caller no longer waits, or ''.
-- After that time nothing is stored and the server's time is returned, because by then the caller uses another id for
-- the key. Restarting the TTL of a stored id is harmless even then.
-- The reply is the stored value; 0 if the candidate was stored, which may equal what other callers have stored. If the
-- session has expired and the key was reset, it is a table with what is kept of the reset, and nothing is stored: the
-- candidate may be the id from before the reset.
local value = get(KEYS[1])
if value then
  if ARGV[3] ~= 'lengthen' or redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
  end
  return value
end
local reset = KEYS[2] and get(KEYS[2], 64)
if reset then
  return {reset}
end
if ARGV[1] == '' then
  return false
end
local deadline = tonumber(ARGV[4] or '')
if deadline then
  local now = milliseconds()
  if now > deadline then
    return now
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
