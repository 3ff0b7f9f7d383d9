-- Return the header of a token (format, version, key id), or '' if it cannot be read: what a process needs to know that
-- its copy is still the stored one. A tombstone needs no check: writing one deletes the token, and below it none is stored.
-- Without the prelude, whose functions would take twice the time of this. KEYS: token.
local header = redis.pcall('GETRANGE', KEYS[1], 0, 12)
return type(header) == 'string' and header or ''
