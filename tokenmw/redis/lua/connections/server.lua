-- Return what INFO says of the server that has the key: of its persistence, and of what it does when it is full. Each is
-- '' where INFO is not allowed. KEYS: index.
local parts = {}
for _, section in ipairs({'persistence', 'memory'}) do
  local info = redis.pcall('INFO', section)
  table.insert(parts, type(info) == 'string' and info or '')
end
return parts
