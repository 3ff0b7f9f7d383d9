-- Replace a value that nobody can use, if it is still the one that was seen. KEYS: any. ARGV: seen, new, ms to live.
-- Returns what stands there afterwards; '' as the new value deletes. Without a time to live, what is left stays left.
local value = get(KEYS[1])
if value and value ~= ARGV[1] then
  return value
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
elseif ARGV[3] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
elseif value then
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
else
  return '' -- it has ended meanwhile
end
return ARGV[2]
