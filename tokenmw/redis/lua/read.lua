-- Return the token, if it is above the tombstone, its ms to live, the tombstone's version, and this server's time.
-- KEYS: token, lease, note, tombstone.
local value, left, version = token_at(KEYS[1])
local dead = number_at(KEYS[4])
if version <= dead then
  value, left = false, 0
end
return {value, left, text(dead), microseconds()}
