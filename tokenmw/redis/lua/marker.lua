-- Return the epoch marker of this server; write one if there is none. After its data were lost there is none, and after
-- a restart or a failover it has another replication history. Note whether all instances announce what they change.
-- KEYS: marker; silent, which exists while one does not. ARGV: a random marker; 1 if the caller announces, else 0.
-- Returns marker and history, 1 if the marker was written now, the server's time in ms, and 1 if an instance is silent.
local DAY = 86400000 -- ms
local HOUR = 3600000
local MINUTE = 60000
local mark = get(KEYS[1])
local made = 0
-- Versions before hints let the marker last for a day, this one for an hour more. So a shorter TTL is one of theirs.
local silent = ARGV[2] ~= '1' or (mark and redis.call('PTTL', KEYS[1]) <= DAY)
if not mark or #mark > 64 or not string.match(mark, '^%x+$') then
  mark = ARGV[1]
  made = 1
end
-- It expires after the last instance has read it: no key of this package exists for ever.
redis.call('SET', KEYS[1], mark, 'PX', DAY + HOUR)
if silent then
  redis.call('SET', KEYS[2], '1', 'PX', MINUTE)
else
  silent = get(KEYS[2])
end
-- A replica that takes over has the marker, but perhaps not the last writes. Without permission for INFO, the history
-- is empty, and a failover is not noticed.
local info = redis.pcall('INFO', 'replication')
local history = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
return {mark .. history, made, milliseconds(), silent and 1 or 0}
