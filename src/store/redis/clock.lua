
local time = redis.call('TIME')
local now = math.max(0, ((time[1] - EPOCH) * 1000000 + time[2]) * 16)
