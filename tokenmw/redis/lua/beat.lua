-- Write the heartbeat of an instance, unless another one has its place. KEYS: the place's key, which ends in its number.
-- ARGV: the value, whose header has the instance; ms to live; the number of places.
-- Returns -1 if it was written; else a free place to try, or -2 if all are taken.
local HEADER = 9 -- bytes: the format and the instance
local LONGEST = 4096 -- bytes
local found = get(KEYS[1], LONGEST)
if not found or string.sub(found, 1, HEADER) == string.sub(ARGV[1], 1, HEADER) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return -1
end
local prefix, number = string.match(KEYS[1], '^(.*%-)(%d+)$')
local places = tonumber(ARGV[3])
for step = 1, places - 1 do
  local place = (tonumber(number) + step) % places
  if not get(string.format('%s%d', prefix, place), LONGEST) then
    return place
  end
end
return -2
