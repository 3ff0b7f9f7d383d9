-- Return the header of the token (format, version, key id), or '' if there is none, and the tombstone's version: enough to
-- know whether a caller's copy is still current, in about 40 bytes. KEYS: token, tombstone.
local value = token_at(KEYS[1])
return {value and string.sub(value, 1, 13) or '', text(number_at(KEYS[2]))}
