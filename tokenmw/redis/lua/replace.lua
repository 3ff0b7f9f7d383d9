-- Replace a value if it is still the one that was read. KEYS: any. ARGV: old value, new value, ms to live.
-- '' as the new value deletes the key; '' as ms to live keeps the TTL. Returns the value that is stored afterwards.
local value = get(KEYS[1], LONGEST_TOKEN)
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
  return '' -- it has expired in the meantime
end
return ARGV[2]
