-- What session.lua does for one API key, for many of them in one call: a server that is not in a cluster has all keys.
-- KEYS: sessions. ARGV: ms to live; the time in ms after which the callers no longer wait, or ''; then a candidate for
-- each key, '' where nothing is stored. The reply is that of session.lua for each key.
local deadline = tonumber(ARGV[2])
local values = {}
for number, key in ipairs(KEYS) do
  local value = get(key)
  local candidate = ARGV[number + 2]
  if value then
    redis.call('PEXPIRE', key, ARGV[1])
  elseif candidate ~= '' then
    if deadline and milliseconds() > deadline then
      value = milliseconds()
    else
      redis.call('SET', key, candidate, 'PX', ARGV[1])
      value = 0
    end
  end
  values[number] = value
end
return values
