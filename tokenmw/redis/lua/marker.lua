-- Return the epoch marker of this server; write one if there is none. After its data were lost there is none, and after
-- a restart or a failover it has another replication history. KEYS: marker. ARGV: a random marker.
-- Returns marker and history, 1 if the marker was written now, and the server's time in ms.
local mark = get(KEYS[1])
local made = 0
if not mark or #mark > 64 or not string.match(mark, '^%x+$') then
  mark = ARGV[1]
  made = 1
end
-- It expires a day after the last instance has read it: no key of this package exists for ever.
redis.call('SET', KEYS[1], mark, 'PX', 86400000)
-- A replica that takes over has the marker, but perhaps not the last writes. Without permission for INFO, the history
-- is empty, and a failover is not noticed.
local info = redis.pcall('INFO', 'replication')
local history = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
return {mark .. history, made, milliseconds()}
