-- What is known of a token, in one look. KEYS: token, lease, note, tombstone.
local value, left = mortal(KEYS[1])
local dead = number_at(KEYS[4])
if value and version_of(value) <= dead then
  return {false, 0, text(dead)}
end
return {value, left, text(dead)}
