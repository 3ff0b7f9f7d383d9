-- Return the heartbeats of some places. KEYS: the key of the first place, which ends in its number. ARGV: how many places.
-- Returns this server's time in ms; then the number, the value and the remaining ms to live of each place that is taken.
local LONGEST = 4096 -- bytes
local prefix, number = string.match(KEYS[1], '^(.*%-)(%d+)$')
local replies = {milliseconds()}
for place = tonumber(number), tonumber(number) + tonumber(ARGV[1]) - 1 do
  local key = string.format('%s%d', prefix, place)
  local value = get(key, LONGEST)
  if value then
    replies[#replies + 1] = place
    replies[#replies + 1] = value
    replies[#replies + 1] = redis.call('PTTL', key)
  end
end
return replies
