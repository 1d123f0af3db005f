-- Puts a record where the expected one is. Returns whether it did.
-- ARGV: its key; the new record; the expected one, left out where there must be none.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= (ARGV[3] or false) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
