-- What session.lua does for one API key, for many of them in one call: a server that is not in a cluster has all keys.
-- KEYS: sessions; then the last reset of each, where resets are kept. ARGV: ms to live; the time in ms after which the
-- callers no longer wait, or ''; then a candidate for each session, '' where nothing is stored. The replies are those of
-- session.lua, and nil where there is nothing. A write that is refused, as by a full server, is an error in place of its
-- reply: the ids that are stored are returned all the same.
local deadline = tonumber(ARGV[2])
local count = #ARGV - 2
local values = {}
for number = 1, count do
  local key = KEYS[number]
  local value = get(key)
  local candidate = ARGV[number + 2]
  local reset = not value and KEYS[count + number] and get(KEYS[count + number], 64)
  if value then
    redis.call('PEXPIRE', key, ARGV[1])
  elseif reset then
    value = {reset}
  elseif candidate ~= '' then
    if deadline and milliseconds() > deadline then
      value = milliseconds()
    else
      local stored = redis.pcall('SET', key, candidate, 'PX', ARGV[1])
      value = stored.err and stored or 0
    end
  end
  values[number] = value
end
return values
