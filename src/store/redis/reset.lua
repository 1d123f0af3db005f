-- Forgets what was used of all limits but slots. As `forget` in rules/rate.rs: all of a rate that has not drained is
-- given back, so that what was reserved before gives back nothing more.

local now = clock()
local record = read(KEYS[1], now)
local limits = record.limits
for i = 1, #limits, 4 do
  local rule = math.floor(limits[i] / RULE)
  if rule == RATE then
    local undrained = math.max(0, limits[i + 1] - now)
    limits[i + 1] = limits[i + 1] - undrained
    limits[i + 2] = (limits[i + 2] + undrained) % SHIFT_MODULUS
  elseif rule == CALENDAR then
    limits[i + 3] = 0
  else
    limits[i + 2], limits[i + 3] = 0, 0
  end
end
write(KEYS[1], record, now)
return 1
