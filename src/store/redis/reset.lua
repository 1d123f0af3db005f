-- Forgets what was used of all limits but slots. As `forget` in rules/rate.rs: all of a rate that has not drained is
-- given back, so that what was reserved before gives back nothing more.

local record = read(KEYS[1], now)
local rates, count, limits = record.rates, record.count, record.limits
local function drained(level, mark)
  local undrained = math.max(0, level - now)
  return level - undrained, (mark + undrained) % SHIFT_MODULUS
end
for i = count + 1, 2 * count do rates[i], rates[count + i] = drained(rates[i], rates[count + i]) end
for i = 1, #limits, 4 do
  local rule = math.floor(limits[i] / RULE)
  if rule == RATE then
    limits[i + 1], limits[i + 2] = drained(limits[i + 1], limits[i + 2])
  elseif rule == CALENDAR then
    limits[i + 3] = 0
  else
    limits[i + 2], limits[i + 3] = 0, 0
  end
end
write(KEYS[1], record, now)
return 1
