-- Precedes the scripts of tokens. The keys of one token are, in this order: token, lease, note, tombstone.
-- A value that exists for longer than one of its kind can counts as absent, too: one write of somebody else must not
-- keep every process from its tokens for years.

local TOKEN_LASTS = 2592000000 -- ms: a longer lifetime is cut to 30 days before a token is stored
local NOTE_LASTS = 3600000 -- ms: the longest Retry-After that is obeyed
local LEASE_LASTS = 3600000 -- ms: longer than any `Limits(lease_seconds=…)`

-- Fencing versions are microseconds since 1970, by this server's clock or, for tokens fetched without it, by another
-- one. A version more than a day ahead of this server is garbage, so that a damaged or planted value cannot win all
-- comparisons. So is one above the year 2112: beyond it, a double is soon inexact.
local AHEAD = 86400000000
local LAST = 4503599627370496
-- A version may be older than the request for its token by a minute.
local BEHIND = 60000000

local function possible(version)
  return version < LAST and version <= microseconds() + AHEAD
end

-- A value and its ms to live. A value without a TTL, or with one of more than `lasts` ms, was not stored by this package.
local function mortal(key, longest, lasts)
  local value = get(key, longest)
  if not value then
    return false, 0
  end
  local left = redis.call('PTTL', key)
  if left <= 0 or left > lasts then
    return false, 0
  end
  return value, left
end

-- Owner, version and ms to live of a lease; garbage counts as absent, because no owner would release it.
local function lease_at(key, lasts)
  local value, left = mortal(key, LONGEST_TEXT, lasts)
  if not value then
    return false, false, 0
  end
  local owner, version = string.match(value, '^(%w+):(%d+)$')
  if not owner or not possible(tonumber(version)) then
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
  return possible(version) and version or 0
end

-- A token, its ms to live, and its version.
local function token_at(key)
  local value, left = mortal(key, LONGEST_TOKEN, TOKEN_LASTS)
  local version = version_of(value)
  if version == 0 then
    return false, 0, 0
  end
  return value, left, version
end

-- The version in a tombstone, or 0. A tombstone without a TTL counts: what is invalid stays invalid.
local function number_at(key)
  local value = get(key)
  local number = value and string.match(value, '^%d+$') and tonumber(value) or 0
  return possible(number) and number or 0
end

-- An integer in decimal digits; tostring would use an exponent.
local function text(number)
  return string.format('%.0f', number)
end
