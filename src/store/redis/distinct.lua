-- Notes a member of a set that counts up to a cap, within a window that begins with the first.
-- ARGV: the member; the window in milliseconds; the cap. Returns the count, whether there are more, whether it is new.

local MORE = 'more'
local member, window, cap = ARGV[1], ARGV[2], tonumber(ARGV[3])
local size = redis.call('SCARD', KEYS[1])
local more = redis.call('SISMEMBER', KEYS[1], MORE)
local count = size - more
local new = 0
if redis.call('SISMEMBER', KEYS[1], member) == 0 then
  if count < cap then
    new, count = 1, count + 1
    redis.call('SADD', KEYS[1], member)
  else
    more = 1
    redis.call('SADD', KEYS[1], MORE)
  end
  if size == 0 then redis.call('PEXPIRE', KEYS[1], window) end
end
return {math.min(count, cap), more, new}
