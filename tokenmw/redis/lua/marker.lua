-- Leave a mark on this server, or read the one that is there. A server that was emptied has none, one that was restarted
-- or took over from another has another history. KEYS: marker. ARGV: a random word.
-- Returns the mark, 1 if it was not there before, and the time of this server in ms.
local mark = get(KEYS[1])
local made = 0
if not mark then
  mark = ARGV[1]
  made = 1
end
-- It ends a day after the last one who looks has gone: nothing of ours stays for ever.
redis.call('SET', KEYS[1], mark, 'PX', 86400000)
-- A replica that takes over has the mark, and perhaps not the last writes. Who may not ask is told nothing.
local info = redis.pcall('INFO', 'replication')
local history = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
return {mark .. history, made, milliseconds()}
