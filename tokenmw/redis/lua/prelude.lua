-- Precedes every script. The keys of one token are, in this order: token, lease, note, tombstone.
-- Reading changes nothing: a value that this package did not write counts as absent, and is overwritten in time.

-- Fencing versions are microseconds since 1970. A version at or above this one (the year 2112) is garbage, so that a
-- damaged value cannot push later versions out of the range in which a double is exact.
local LAST = 4503599627370496

-- The string at a key, or false; a key of another type counts as absent.
local function get(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' and value.err then
    if not string.find(value.err, 'WRONGTYPE', 1, true) then
      return redis.call('GET', key) -- raises the error, such as a missing permission
    end
    return false
  end
  return value
end

-- A value and its ms to live. A value without a TTL was not stored by this package, and would never expire.
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

-- Owner, version and ms to live of a lease; garbage counts as absent, because no owner would release it.
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

-- The version in a value's header; 0 if it has another format, so that garbage never wins a comparison.
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

-- The version in a tombstone, or 0. A tombstone without a TTL counts: what is invalid stays invalid.
local function number_at(key)
  local value = get(key)
  local number = value and string.match(value, '^%d+$') and tonumber(value) or 0
  return number < LAST and number or 0
end

-- The time of this server.
local function milliseconds()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- An integer in decimal digits; tostring would use an exponent.
local function text(number)
  return string.format('%.0f', number)
end
