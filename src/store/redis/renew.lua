-- Holds the slots of a holder for another lease. Returns how many entries there were.
-- ARGV: the holder; the lease in ticks.

local record = read(KEYS[1], now)
local held = 0
for i = 1, #record.slots, 4 do
  if record.slots[i + 1] == ARGV[1] and record.slots[i + 2] > 0 and record.slots[i + 3] > now then
    record.slots[i + 3] = now + tonumber(ARGV[2])
    held = held + 1
  end
end
if held > 0 then write(KEYS[1], record, now) end
return held
