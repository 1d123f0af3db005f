-- Keeps the larger of a number and the one that is kept, for the longer of their times.
-- ARGV: the number, in decimal; its time in milliseconds. Returns what is kept.

local value, ttl = ARGV[1], tonumber(ARGV[2])
local kept = redis.call('GET', KEYS[1])
if kept then
  -- As texts: a double does not hold all 64 bits.
  if #kept > #value or (#kept == #value and kept > value) then value = kept end
  ttl = math.max(ttl, redis.call('PTTL', KEYS[1]))
end
redis.call('SET', KEYS[1], value, 'PX', string.format('%d', ttl))
return value
