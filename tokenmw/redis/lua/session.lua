-- Get the session id of a key or make it the given one, and start its time again: one round trip.
-- KEYS: session. ARGV: candidate, ms to live; 'lengthen', never to fewer than it has, or ''; the time in ms at
-- which nobody waits for this any more, or ''. What comes later makes nothing, and is told the time: whoever sent
-- it has given the key another id by then. Time given to a key that has one does no harm.
local value = get(KEYS[1])
if value then
  if ARGV[3] ~= 'lengthen' or redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
  end
  return value
end
local over = tonumber(ARGV[4] or '')
if over then
  local now = milliseconds()
  if now > over then
    return now
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
