-- Check that this server can be used: that it takes writes, which one that is full or read-only does not although it
-- answers PING, and that it has and allows every command that scripts and batches need. KEYS: the probe's key.
-- Returns its version, or '' where INFO is not allowed, and the commands that its ACL refuses, separated by spaces.
local commands = {
  {'SET', KEYS[1], '1', 'PX', '1000'},
  {'GET', KEYS[1]},
  {'GETEX', KEYS[1], 'PX', '1000'},
  {'PEXPIRE', KEYS[1], '1000'},
  {'PTTL', KEYS[1]},
  {'DEL', KEYS[1]},
  {'TIME'},
}
local refused = {}
for _, command in ipairs(commands) do
  local reply = redis.pcall(unpack(command))
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, "can't run this command", 1, true) or string.find(reply.err, 'ACL failure', 1, true) then
      table.insert(refused, string.lower(command[1]))
    else
      return reply
    end
  end
end
local info = redis.pcall('INFO', 'server')
local version = type(info) == 'string' and string.match(info, 'redis_version:([%d.]+)') or ''
return {version, table.concat(refused, ' ')}
