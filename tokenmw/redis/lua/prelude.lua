-- Precedes every script. Reading changes nothing: a value that this package did not write counts as absent, and is
-- overwritten in time.

local LONGEST_TOKEN = 1048576 -- bytes
local LONGEST_TEXT = 32768 -- bytes of any other value

-- This server's time in microseconds, the same throughout a script.
local now
local function microseconds()
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
  end
  return now
end

local function milliseconds()
  return math.floor(microseconds() / 1000)
end

-- The string at a key, or false. A key of another type counts as absent, and so does a string that is too long, of which
-- no more is read than shows that it is.
local function get(key, longest)
  longest = longest or LONGEST_TEXT
  local value = redis.pcall('GETRANGE', key, 0, longest)
  if type(value) == 'table' and not string.find(value.err, 'WRONGTYPE', 1, true) then
    value = redis.pcall('GET', key) -- an ACL made for an earlier version of this package allows no GETRANGE
  end
  if type(value) == 'table' then
    if not string.find(value.err, 'WRONGTYPE', 1, true) then
      return redis.call('GET', key) -- raises the error, such as a missing permission
    end
    return false
  end
  if not value or value == '' or #value > longest then
    return false
  end
  return value
end
