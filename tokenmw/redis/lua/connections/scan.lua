-- Return connections in the order of their digests. KEYS: index.
-- ARGV: the digest after which to begin, or ''; the greatest number of them; what precedes a digest in the key of a row.
-- Each is a table: digest, app, subject, version, value.
local found = {}
local limit = tonumber(ARGV[2])
local from = ARGV[1] == '' and '-' or '(' .. ARGV[1]
while #found < limit do
  local digests = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, limit - #found)
  if #digests == 0 then
    break
  end
  for _, digest in ipairs(digests) do
    local row = redis.call('HMGET', ARGV[3] .. digest, 'app', 'subject', 'version', 'value')
    if row[3] and row[4] then
      table.insert(found, {digest, row[1], row[2], row[3], row[4]})
    end
  end
  from = '(' .. digests[#digests]
end
return found
