-- Return the token, if it is above the tombstone, its ms to live, and the tombstone's version.
-- KEYS: token, lease, note, tombstone.
local value, left = mortal(KEYS[1])
local dead = number_at(KEYS[4])
if value and version_of(value) <= dead then
  return {false, 0, text(dead)}
end
return {value, left, text(dead)}
