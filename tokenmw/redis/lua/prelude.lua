-- In front of every script. Keys of one token, in this order: token, lease, note, tombstone.
-- Looking changes nothing: what was not put there by us is as good as nothing, and is overwritten in time.

-- Versions are microseconds since 1970. At and above this one (the year 2112) they are garbage, so that a damaged value
-- cannot push all later versions out of the range in which a double is exact.
local LAST = 4503599627370496

-- What stands under a key as a string; another type is none.
local function get(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' and value.err then
    if not string.find(value.err, 'WRONGTYPE', 1, true) then
      return redis.call('GET', key) -- raises what it was, such as a missing permission
    end
    return false
  end
  return value
end

-- A value with the milliseconds it still has. One without a time to live was not stored by us, and would live for ever.
local function mortal(key)
  local value = get(key)
  if not value then
    return false, 0
  end
  local left = redis.call('PTTL', key)
  if left <= 0 then
    return false, 0
  end
  return value, left
end

-- Owner, version and milliseconds left of a lease; garbage is none, for nobody would give it back.
local function lease_at(key)
  local value, left = mortal(key)
  if not value then
    return false, false, 0
  end
  local owner, version = string.match(value, '^(%w+):(%d+)$')
  if not owner or tonumber(version) >= LAST then
    return false, false, 0
  end
  return owner, version, left
end

-- The version in a value's header; 0 if it is not of our format, so that garbage never wins a comparison.
local function version_of(value)
  if not value or #value < 13 or string.byte(value, 1) ~= 1 then
    return 0
  end
  local version = 0
  for i = 2, 9 do
    version = version * 256 + string.byte(value, i)
  end
  return version < LAST and version or 0
end

-- The version in a tombstone; also of one that never lapses: what was declared invalid stays so.
local function number_at(key)
  local value = get(key)
  local number = value and string.match(value, '^%d+$') and tonumber(value) or 0
  return number < LAST and number or 0
end

-- This server's clock.
local function milliseconds()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end
